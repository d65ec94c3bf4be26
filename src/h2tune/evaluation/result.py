"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from h2tune.scoring.scorers import ACCURACY as ACCURACY


@dataclass(frozen=True)
class Sample:
    """A free answer that was scored, beside the reference; texts of the client, which never leave it."""

    prompt: str
    reference: str
    answer: str
    score: float


@dataclass(frozen=True)
class Score:
    """Accuracy (0–1) and mean loss (nats per example) on a number of examples.

    `accuracy` is the mean of what `measure` names, such as ROUGE-L, where that is another.
    """

    accuracy: float
    loss: float
    examples: int
    measure: str = ACCURACY
    samples: tuple[Sample, ...] = ()
    """The first free answers."""
