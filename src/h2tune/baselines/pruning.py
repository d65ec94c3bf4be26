"""The adapted model of HetLoRA (arXiv 2401.06432), which prunes ranks that it does not need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from h2tune.baselines.lora import ADAPTER, BOTH, UP, LoraAdaptedModel
from h2tune.federation.messages import Download, Tensors

PENALTY = 5e-3
"""λ"""
DECAY = 0.99
"""γ"""
RANK = "rank"
"""Name of a client's current rank in its update and state; in the server's state followed by the client's name."""
TINY = 1e-12


def cut(tensors: Mapping[str, Tensor], rank: int) -> Tensors:
    """Return A and B with zeros at this rank and above."""
    keep = {n: (torch.arange(t.shape[n.endswith(UP)]) < rank).to(t) for n, t in tensors.items()}
    return {n: t * (keep[n] if n.endswith(UP) else keep[n][:, None]) for n, t in tensors.items()}


class HetLoraAdaptedModel(LoraAdaptedModel):
    """LoRA that prunes ranks it does not need. Arguments as in `LoraAdaptedModel`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, shared=BOTH, **options)
        self.rank = self.enrolment.rank

    def receive(self, download: Download) -> None:
        """Load A and B, store the norms of the ranks that may be pruned, and penalise these ranks in training."""
        super().receive(download)
        self.tail = slice(max(1, int(DECAY * self.rank)), self.rank)
        self.before = self.tail_norm()
        for layer in self.layers.values():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            down.register_hook(self._penalty(down, self.tail, up, (slice(None), self.tail)))
            up.register_hook(self._penalty(up, (slice(None), self.tail), down, self.tail))

    @torch.no_grad()
    def tail_norm(self) -> float:
        """Return Σ ‖B_tail‖ ‖A_tail‖ over the modules."""
        return sum(
            float(layer.lora_A[ADAPTER].weight[self.tail].norm())
            * float(layer.lora_B[ADAPTER].weight[:, self.tail].norm())
            for layer in self.layers.values()
        )

    def next_rank(self) -> int:
        """Return the rank after pruning; the model stays as it was scored until the next round."""
        return self.tail.start if self.tail_norm() < self.before else self.rank

    def send(self) -> Tensors:
        rank = self.next_rank()
        return cut(super().send(), rank) | {RANK: torch.tensor([rank], dtype=torch.int32)}

    def learned(self) -> Tensors:
        return cut(super().learned(), self.next_rank())

    def state(self) -> Tensors:
        return super().state() | {RANK: torch.tensor([self.next_rank()], dtype=torch.int32)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.rank = int(state[RANK])
        super().load_state({name: tensor for name, tensor in state.items() if name != RANK})

    def _penalty(
        self, own: nn.Parameter, own_tail: Any, other: nn.Parameter, other_tail: Any
    ) -> Callable[[Tensor], Tensor]:
        """Return a hook that adds the gradient of λ ‖own tail‖ ‖other tail‖ to a parameter's gradient."""

        def add(gradient: Tensor) -> Tensor:
            if own.grad is not None:  # a later micro-batch of the same optimiser step
                return gradient
            gradient = gradient.clone()
            tail = own.detach()[own_tail]
            gradient[own_tail] += (
                PENALTY * other.detach()[other_tail].norm() * tail / tail.norm().clamp(min=TINY)
            )
            return gradient

        return add
