"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Accuracy (0–1) and mean loss (nats per example) on a number of examples."""

    accuracy: float
    loss: float
    examples: int
