"""One round of local training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from h2tune.quiet import quiet
from h2tune.seeds import derive, isolated
from h2tune.training.arguments import DEFAULTS, device_of, output_folder
from h2tune.training.encode import Encoded, collator
from h2tune.training.schedule import Alternation, draw, interleaved, optimiser_steps
from h2tune.training.terms import Progress, Record, Terms


@dataclass(frozen=True)
class LocalTraining:
    """The hyperparameters of a client's local training.

    Args:
        alternation: How the phases alternate, in all rounds but a client's first, which trains them jointly.
        rounds: Number of rounds in all, which the scheduler spans.
        local_steps: Local steps of a round.
        batch_size: Examples of a local step.
        accumulation: Micro-batches per local step.
        learning_rates: Learning rate of "specific", "shared" and "relation" parameters.
        weight_decay: Of the specific parameters.
        scheduler: Name of a scheduler of Transformers.
        warmup_steps: Optimiser steps of warm-up, from the start of the first round.
        max_grad_norm: Norm to which gradients are clipped; 0 for no clipping.
        arguments: Further arguments of `TrainingArguments`.
        normalised: Whether Δ is trained by normalised gradient steps; see `normalised.normalising`.
        public_batch: Public texts per local step, added to the client's own examples.
        teacher_labels: How many labels the teacher counts as: μ of equation (14) is this over the number of own ones.
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
    teacher_labels: float = 128.0

    def teacher_weight(self, labels: int) -> float:
        """Return μ of equation (14) for a client with this many labels."""
        return self.teacher_labels / max(1, labels)

    def outweighs_teacher(self, labels: int) -> bool:
        """Return whether this many labels count at least as much as the teacher."""
        return self.teacher_weight(labels) <= 1

    def with_teacher(self, labels: int) -> LocalTraining:
        """Return the same number of rows for a client with this many labels and a teacher.

        Where μ is below one, public texts are as rare in a batch as they weigh little: of a thousand labels more is
        learned than of a teacher.
        """
        least = self.accumulation  # micro-batches have equally many
        share = min(1.0, self.teacher_weight(labels))
        public = max(least, round(self.public_batch * share / least) * least)
        rows = self.local_steps * (self.batch_size + self.public_batch)
        return replace(self, public_batch=public, local_steps=rows // (self.batch_size + public))

    def without_teacher(self) -> LocalTraining:
        """Return the same number of rows for a client without public texts: more steps of its own examples."""
        rows = self.local_steps * (self.batch_size + self.public_batch)
        return replace(self, local_steps=max(1, rows // self.batch_size), alternation="joint")

    def trainer_arguments(self, steps: int, seed: int, batch: int | None = None) -> TrainingArguments:
        """Return the Trainer's arguments for one round.

        Args:
            steps: Optimiser steps of the round.
            seed: The Trainer's seed.
            batch: Texts of a local step, own and public ones; `batch_size` if left out.
        """
        found = TrainingArguments(
            output_dir=output_folder(),
            max_steps=steps,
            per_device_train_batch_size=(batch or self.batch_size) // self.accumulation,
            gradient_accumulation_steps=self.accumulation,
            learning_rate=self.learning_rates["specific"],
            weight_decay=self.weight_decay,
            lr_scheduler_type=self.scheduler,
            warmup_steps=self.warmup_steps,
            max_grad_norm=self.max_grad_norm,
            seed=seed % 2**31,
            remove_unused_columns=False,
            disable_tqdm=True,
            **(DEFAULTS | dict(self.arguments)),
        )
        if found.n_gpu > 1:
            found._n_gpu = 1  # the Trainer would multiply the batch, and split it over all devices
        return found


@dataclass(frozen=True)
class LocalRound:
    """One round of a client's local training.

    Args:
        model: A PEFT model.
        data: The client's encoded training examples.
        tokenizer: Its tokenizer.
        numbers: The hyperparameters of its local training.
        causal: Whether the model is a decoder.
        phases: Trained parameters by phase and name.
        terms: Loss terms besides the task loss.
        alternation: How the phases alternate in this round.
        round_number: Number of the round, from 0.
        seed: The client's seed.
        progress: Called after each optimiser step.
        public: Public texts with a teacher's targets, a part of every batch.
        head_started: Whether the head started at a teacher or at the labels; it is then trained without dropout.
    """

    model: nn.Module
    data: Sequence[Encoded]
    tokenizer: PreTrainedTokenizerBase
    numbers: LocalTraining
    _: KW_ONLY
    causal: bool
    phases: Mapping[str, Mapping[str, nn.Parameter]]
    terms: Terms
    alternation: Alternation
    round_number: int
    seed: int
    progress: Progress | None = None
    public: Sequence[Encoded] = ()
    head_started: bool = False

    def train(self) -> Record:
        """Train the adapter in place, and return the record of the round; without any row nothing is trained."""
        if not self.data and not self.public:
            return Record()
        from h2tune.training.trainer import AlternatingTrainer

        numbers, offset, total = self.numbers, *self._schedule()
        with (
            isolated(self.seed, "train", self.round_number),
            without_dropout(self.model) if self.head_started else nullcontext(),
            quiet(),
        ):
            trainer = AlternatingTrainer(
                self.model,
                self._arguments(),
                [*self.data, *self.public],
                collator(self.model, self.tokenizer, causal=self.causal),
                order=self._order(),
                phases=self.phases,
                learning_rates=numbers.learning_rates,
                alternation=self.alternation,
                terms=self.terms,
                causal=self.causal,
                progress=self.progress,
                normalised=numbers.normalised,
                schedule_offset=offset,
                schedule_total=total,
            )
            trainer.train()
        self.model.eval()
        return trainer.record

    def _arguments(self) -> TrainingArguments:
        steps = optimiser_steps(self.numbers.local_steps, self.alternation)
        seed = derive(self.seed, "trainer", self.round_number)
        own = self.numbers.batch_size if self.data else 0
        public = self.numbers.public_batch if self.public else 0
        return self.numbers.trainer_arguments(steps, seed, own + public)

    def _schedule(self) -> tuple[int, int]:
        """Return the number of optimiser steps before this round, and of all rounds; the first round is joint."""
        first = self.numbers.local_steps
        later = optimiser_steps(first, self.numbers.alternation)
        offset = first + (self.round_number - 1) * later if self.round_number else 0
        return offset, first + (self.numbers.rounds - 1) * later

    def _order(self) -> list[int]:
        """Return the indices of the rows in the order of the optimiser steps; public rows follow the client's own."""
        numbers, own = self.numbers, len(self.data)
        steps, batch, public_batch = numbers.local_steps, numbers.batch_size, numbers.public_batch
        before = self.round_number * steps
        order = draw(own, batch, before, steps, self.alternation, self.seed) if own else []
        if not self.public:
            return order
        seed = derive(self.seed, "public")
        drawn = draw(len(self.public), public_batch, before, steps, self.alternation, seed)
        texts = [own + i for i in drawn]
        return interleaved(order, texts, batch, public_batch, numbers.accumulation) if own else texts


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Set the model's dropout to zero while the block runs.

    A head that is fitted to states has large weights where these vary little. With dropout on such states its scores
    jump by tens of nats from batch to batch, and training forgets what the head knew.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    before = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = 0.0
        yield
    finally:
        for layer, p in zip(layers, before, strict=True):
            layer.p = p


def training_device(numbers: LocalTraining) -> torch.device:
    """Return the device on which the Trainer trains, such as the first GPU."""
    return device_of(json.dumps(dict(numbers.arguments), sort_keys=True))
