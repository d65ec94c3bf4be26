"""One round of local training."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import SchedulerType

from h2tune.errors import H2TuneError, nearest
from h2tune.quiet import quiet
from h2tune.seeds import derive, isolated
from h2tune.training.encode import Encoded, collator
from h2tune.training.schedule import Alternation, draw, optimiser_steps
from h2tune.training.trainer import AlternatingTrainer, Progress, Record, Terms

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


def check_arguments(arguments: Mapping[str, Any], scheduler: str) -> None:
    """Refuse arguments of the Trainer that do not exist, that h2tune sets itself, or an unknown scheduler.

    Raises:
        H2TuneError: Names the argument and the nearest known one.
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


def train_locally(
    model: nn.Module,
    data: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    *,
    causal: bool,
    phases: Mapping[str, Mapping[str, nn.Parameter]],
    terms: Terms,
    alternation: Alternation,
    later_alternation: Alternation,
    round_number: int,
    rounds: int,
    local_steps: int,
    batch_size: int,
    accumulation: int,
    learning_rates: Mapping[str, float],
    weight_decay: float,
    scheduler: str,
    warmup_steps: int,
    max_grad_norm: float,
    arguments: Mapping[str, Any],
    seed: int,
    progress: Progress | None = None,
) -> Record:
    """Train a client's adapter for one round, and return what that did.

    The first round may alternate in another way than the later ones; the scheduler spans them all.

    Args:
        model: A PEFT model.
        data: The client's encoded training examples.
        tokenizer: Its tokenizer.
        causal: Whether it answers with words.
        phases: Trained parameters by phase and name.
        terms: Loss terms beside the task loss.
        alternation: How the phases take turns in this round.
        later_alternation: How they do in all rounds but the first.
        round_number: Number of the round, from 0.
        rounds: Number of all rounds.
        local_steps: Local steps of a round.
        batch_size: Examples of a local step.
        accumulation: Micro-batches it is split into.
        learning_rates: Learning rate of "specific", "shared" and "relation" parameters.
        weight_decay: Of the specific parameters.
        scheduler: Name of a scheduler of Transformers.
        warmup_steps: Optimiser steps of warm-up, at the start of the first round.
        max_grad_norm: Norm to which gradients are clipped; 0 for never.
        arguments: Further arguments of `TrainingArguments`.
        seed: The client's seed.
        progress: Called after each optimiser step.
    """
    later = optimiser_steps(local_steps, later_alternation)
    first = (
        optimiser_steps(local_steps, alternation)
        if round_number == 0
        else optimiser_steps(local_steps, "joint")
    )
    steps = first if round_number == 0 else later
    with (
        isolated(seed, "train", round_number),
        quiet(),
        tempfile.TemporaryDirectory(prefix="h2tune-") as folder,
    ):
        settings = {"save_strategy": "no", "report_to": "none", "logging_strategy": "no"} | dict(arguments)
        trainer = AlternatingTrainer(
            model,
            TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=batch_size // accumulation,
                gradient_accumulation_steps=accumulation,
                learning_rate=learning_rates["specific"],
                weight_decay=weight_decay,
                lr_scheduler_type=scheduler,
                warmup_steps=warmup_steps,
                max_grad_norm=max_grad_norm,
                seed=derive(seed, "trainer", round_number) % 2**31,
                remove_unused_columns=False,
                disable_tqdm=True,
                dataloader_pin_memory=settings.pop("dataloader_pin_memory", False),
                **settings,
            ),
            data,
            collator(model, tokenizer, causal=causal),
            order=draw(len(data), batch_size, round_number * local_steps, local_steps, alternation, seed),
            phases=phases,
            learning_rates=learning_rates,
            alternation=alternation,
            terms=terms,
            causal=causal,
            progress=progress,
            schedule_offset=first + (round_number - 1) * later if round_number else 0,
            schedule_total=first + (rounds - 1) * later,
        )
        trainer.train()
    model.eval()
    return trainer.record
