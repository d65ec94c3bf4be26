"""Input and output of local training; in a file without the Trainer, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Progress = Callable[[int, str, float], None]
"""Called after every optimiser step with its number (from 1), its phase and its loss."""


@dataclass(frozen=True)
class Terms:
    """Weights and inputs of the loss terms besides the task loss.

    Args:
        size_weight: λ_reg of (6).
        drift_weight: λ_kl of (6).
        distillation_weight: λ_kd of (7); needs both phases on one batch (`alternation="step"`).
        middles: Returns T of all modules (modules, r²), with gradients.
        previous: T at the end of the previous round (modules, r²); None in the first.
        teacher_weight: μ of (14).
        public_items: Public texts per optimiser step.
    """

    size_weight: float = 0.0
    drift_weight: float = 0.0
    distillation_weight: float = 0.0
    middles: Callable[[], Tensor] | None = None
    previous: Tensor | None = None
    teacher_weight: float = 0.0
    public_items: int = 0


@dataclass
class Record:
    """The record of a round of local training.

    Args:
        losses: (phase, loss) of every optimiser step.
        without_gradient: Names of trained parameters whose gradient was zero in every step.
    """

    losses: list[tuple[str, float]] = field(default_factory=list)
    without_gradient: set[str] = field(default_factory=set)
