"""Normalised gradient steps for middle matrices, combined with any optimiser for the other parameters.

An adaptive optimiser moves every entry of T by about the same amount, which spreads T over all directions. The gradient
of a module's T has a rank of about one or two (EXPERIMENTS.md), which a step along it preserves:

    m ← β m + ∂L/∂T        T ← T − lr · √(number of entries) · m / ‖m‖

The step has the Frobenius norm of Adam's first step, so that learning rates are comparable.
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
    """Return a subclass of `kind` with normalised steps for parameter groups that set `normalised`."""

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
                    parameter.grad = None  # `kind` skips parameters without a gradient
            return super().step(closure)

    return Normalising
