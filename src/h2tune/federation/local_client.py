"""A client with its data and local training; never leaves the client's machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from h2tune.federation.messages import Enrolment
from h2tune.models import Kind
from h2tune.tasks.task import Example, Splits, Task
from h2tune.training.encode import Encoded, encode_causal, encode_texts
from h2tune.training.local import LocalTraining


@dataclass(frozen=True)
class LocalClient:
    """A client with its data; never leaves the client's machine.

    Args:
        enrolment: What the server knows about it.
        kind: Whether it generates words or classifies with a head.
        task: Its task.
        splits: Its examples.
        training: Hyperparameters of its local training.
        split: The split that is scored: "test" or "validation".
        evaluate_batch_size: Examples of an evaluation batch.
        seed: The run's seed.
        evaluate_rounds: Whether it is scored before training and after every round, or after the last round only.
        head_start: Whether a new classification head without a teacher starts at random or fitted to the labels.
        vocabulary: Number of tokens that its model knows; None if that is not known.
    """

    enrolment: Enrolment
    kind: Kind
    task: Task
    splits: Splits
    training: LocalTraining
    split: str
    evaluate_batch_size: int
    seed: int
    evaluate_rounds: Literal["all", "last"] = "all"
    head_start: Literal["random", "labels"] = "random"
    vocabulary: int | None = None
    _tokens: dict[str, Sequence[Encoded]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.enrolment.name

    @property
    def causal(self) -> bool:
        return self.kind == "causal"

    def scores(self, round_number: int) -> bool:
        """Return whether it is scored after a round; round −1 is before training."""
        return self.evaluate_rounds == "all" or round_number == self.training.rounds - 1

    def encoded(
        self, split: Literal["train", "scored"], tokenizer: PreTrainedTokenizerBase
    ) -> Sequence[Encoded]:
        """Return the tokenised examples of a split; cached after the first call."""
        if split not in self._tokens:
            examples = self.splits.train if split == "train" else self.scored
            encode = encode_causal if self.causal else encode_texts
            self._tokens[split] = encode(self.task, examples, tokenizer)
        return self._tokens[split]

    @property
    def scored(self) -> tuple[Example, ...]:
        return self.splits.test if self.split == "test" else self.splits.validation


def majority(examples: Sequence[Example]) -> float:
    """Return the accuracy of always giving the most frequent label; 0 for free answers."""
    labels = [example.label for example in examples if example.label is not None]
    return max(labels.count(label) for label in set(labels)) / len(labels) if labels else 0.0
