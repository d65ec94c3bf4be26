"""Steps of normalised gradients for middle matrices, beside any optimiser for the rest.

An adaptive optimiser gives every entry of T about the same step, so that T spreads over all directions; the gradient of
a module's T has one or two (EXPERIMENTS.md), and a step along it keeps them:

    m ← β m + ∂L/∂T        T ← T − lr · √(number of entries) · m / ‖m‖

The step has the Frobenius norm of Adam's first one, so that a learning rate means the same to both.
Deviation: the release steps T by AdamW, as is the default here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

MOMENTUM = 0.9
"""β."""


def normalising(kind: type[Optimizer]) -> type[Optimizer]:
    """Return an optimiser class that takes such steps in groups with `normalised`, and those of `kind` in others."""

    class Normalising(kind):  # type: ignore[misc, valid-type]
        @torch.no_grad()
        def step(self, closure: Callable[[], float] | None = None) -> Any:
            for group in self.param_groups:
                if not group.get("normalised"):
                    continue
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    momentum.mul_(MOMENTUM).add_(parameter.grad)
                    length = group["lr"] * parameter.numel() ** 0.5
                    parameter.sub_(momentum * (length / momentum.norm().clamp(min=1e-12)))
                    parameter.grad = None  # `kind` passes over what has no gradient
            return super().step(closure)

    return Normalising
