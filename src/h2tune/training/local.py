"""One round of local training."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import SchedulerType

from h2tune.errors import H2TuneError, nearest
from h2tune.quiet import quiet
from h2tune.seeds import derive, isolated
from h2tune.training.encode import Encoded, collator
from h2tune.training.schedule import Alternation, draw, mixed, optimiser_steps
from h2tune.training.terms import Progress, Record, Terms

OWNED = frozenset(
    {
        "output_dir",
        "max_steps",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
    }
    | {
        "learning_rate",
        "weight_decay",
        "seed",
        "data_seed",
        "lr_scheduler_type",
        "warmup_steps",
        "max_grad_norm",
    }
    | {"remove_unused_columns", "label_names", "disable_tqdm", "train_batch_size"}
)
"""Arguments of the Trainer that a federation file sets by its own keys, or that h2tune depends on."""
DEFAULTS = {
    "save_strategy": "no",
    "report_to": "none",
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}
"""What h2tune asks of the Trainer unless a federation file says otherwise."""


def check_arguments(arguments: Mapping[str, Any], scheduler: str) -> None:
    """Refuse arguments of the Trainer that do not exist, do not work with h2tune, or that it sets itself.

    Raises:
        H2TuneError: Names the argument or the scheduler and the nearest known one.
    """
    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    for name in arguments:
        if name in OWNED:
            raise H2TuneError(
                f"'{name}' is set by h2tune's own keys", where="train.arguments", remedy="Leave it out"
            )
        if name not in known:
            raise H2TuneError(f"no argument '{name}'{nearest(name, known)}", where="train.arguments")
    schedulers = [kind.value for kind in SchedulerType]
    if scheduler not in schedulers:
        raise H2TuneError(
            f"no scheduler '{scheduler}'{nearest(scheduler, schedulers)}", where="train.scheduler"
        )
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        if (arguments.get(name) or {}).get("use_reentrant"):
            raise H2TuneError(
                "use_reentrant goes backwards through each block alone, but M is worked out once for all blocks",
                where=f"train.arguments.{name}",
                remedy="Leave use_reentrant out: what is trained is the same",
            )


def try_arguments(arguments: Mapping[str, Any]) -> None:
    """Let the Trainer look at its arguments on the machine that trains: a type its device lacks, a library not there.

    Raises:
        H2TuneError: It refuses them.
    """
    if not arguments:
        return
    with quiet(), tempfile.TemporaryDirectory(prefix="h2tune-") as folder:
        try:
            TrainingArguments(output_dir=folder, **{**DEFAULTS, **arguments})
        except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
            raise H2TuneError(
                f"the Trainer refuses them: {str(error).strip(' .')}",
                where="train.arguments",
                remedy="Change or leave out what it names; with use_cpu = true it trains on the CPU",
            ) from error


@dataclass(frozen=True)
class LocalTraining:
    """The numbers of a client's local training.

    Args:
        alternation: How the phases take turns in all rounds but a client's first, which trains them jointly.
        rounds: Number of all rounds; the scheduler spans them.
        local_steps: Local steps of a round.
        batch_size: Examples of a local step.
        accumulation: Micro-batches it is split into.
        learning_rates: Learning rate of "specific", "shared" and "relation" parameters.
        weight_decay: Of the specific parameters.
        scheduler: Name of a scheduler of Transformers.
        warmup_steps: Optimiser steps of warm-up, at the start of the first round.
        max_grad_norm: Norm to which gradients are clipped; 0 for never.
        arguments: Further arguments of `TrainingArguments`.
        normalised: Whether Δ takes steps of normalised gradients.
        public_batch: Public texts of a local step, beside the client's own examples.
        teacher_weight: μ of equation (14).
    """

    alternation: Alternation
    rounds: int
    local_steps: int
    batch_size: int
    accumulation: int
    learning_rates: Mapping[str, float]
    weight_decay: float
    scheduler: str
    warmup_steps: int
    max_grad_norm: float
    arguments: Mapping[str, Any]
    normalised: bool = False
    public_batch: int = 8
    teacher_weight: float = 2.0


def train_locally(
    model: nn.Module,
    data: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    numbers: LocalTraining,
    *,
    causal: bool,
    phases: Mapping[str, Mapping[str, nn.Parameter]],
    terms: Terms,
    alternation: Alternation,
    round_number: int,
    seed: int,
    progress: Progress | None = None,
    public: Sequence[Encoded] = (),
) -> Record:
    """Train a client's adapter for one round, and return its record.

    Args:
        model: A PEFT model.
        data: The client's encoded training examples.
        tokenizer: Its tokenizer.
        numbers: The numbers of its local training.
        causal: Whether it answers with words.
        phases: Trained parameters by phase and name.
        terms: Loss terms beside the task loss.
        alternation: How the phases take turns in this round.
        round_number: Number of the round, from 0.
        seed: The client's seed.
        progress: Called after each optimiser step.
        public: Public texts with a teacher's targets, that ride along in every batch.
    """
    from h2tune.training.trainer import AlternatingTrainer

    steps, before = numbers.local_steps, round_number * numbers.local_steps
    first, later = steps, optimiser_steps(steps, numbers.alternation)
    with (
        isolated(seed, "train", round_number),
        quiet(),
        tempfile.TemporaryDirectory(prefix="h2tune-") as folder,
    ):
        trainer = AlternatingTrainer(
            model,
            _arguments(
                numbers,
                folder,
                optimiser_steps(steps, alternation),
                derive(seed, "trainer", round_number),
                numbers.public_batch if public else 0,
            ),
            [*data, *public],
            collator(model, tokenizer, causal=causal),
            order=_order(len(data), len(public), numbers, before, alternation, seed),
            phases=phases,
            learning_rates=numbers.learning_rates,
            alternation=alternation,
            terms=terms,
            causal=causal,
            progress=progress,
            normalised=numbers.normalised,
            schedule_offset=first + (round_number - 1) * later if round_number else 0,
            schedule_total=first + (numbers.rounds - 1) * later,
        )
        trainer.train()
    model.eval()
    return trainer.record


@contextlib.contextmanager
def unscanned() -> Iterator[None]:
    """Keep garbage collection off what is there already, libraries above all, while the block lasts.

    The Trainer collects garbage after every round of every client: half a second for the million objects of torch and
    Transformers, which is more than a small client trains.
    """
    import h2tune.training.trainer  # noqa: F401 - so that what it imports is there already

    gc.freeze()
    _LASTING.append(True)
    try:
        yield
    finally:
        _LASTING.pop()
        gc.unfreeze()


_LASTING: list[bool] = []
"""One entry for each `unscanned` that lasts: garbage collection is one for the whole process."""


def leave_unscanned() -> None:
    """Keep garbage collection off what there is now: models, clients' examples and events, within `unscanned`.

    Or each round of each client would look through what all the others have added.
    """
    if _LASTING:
        gc.collect()
        gc.freeze()


def training_device(numbers: LocalTraining) -> torch.device:
    """Return the device on which the Trainer trains, such as the first GPU."""
    with quiet(), tempfile.TemporaryDirectory(prefix="h2tune-") as folder:
        return _arguments(numbers, folder, 1, 0).device


def _order(
    own: int, public: int, numbers: LocalTraining, before: int, alternation: Alternation, seed: int
) -> list[int]:
    """Return the indices of the rows that a round's optimiser steps see; public rows come after the own ones."""
    steps, batch, riding = numbers.local_steps, numbers.batch_size, numbers.public_batch
    order = draw(own, batch, before, steps, alternation, seed)
    if not public:
        return order
    texts = draw(public, riding, before, steps, alternation, derive(seed, "public"))
    return mixed(order, [own + i for i in texts], batch, riding, numbers.accumulation)


def _arguments(
    numbers: LocalTraining, folder: str, steps: int, seed: int, riding: int = 0
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=(numbers.batch_size + riding) // numbers.accumulation,
        gradient_accumulation_steps=numbers.accumulation,
        learning_rate=numbers.learning_rates["specific"],
        weight_decay=numbers.weight_decay,
        lr_scheduler_type=numbers.scheduler,
        warmup_steps=numbers.warmup_steps,
        max_grad_norm=numbers.max_grad_norm,
        seed=seed % 2**31,
        remove_unused_columns=False,
        disable_tqdm=True,
        **(DEFAULTS | dict(numbers.arguments)),
    )
