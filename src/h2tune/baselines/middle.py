"""The adapted model of methods that train a small matrix between a frozen A and B: fed-sb and co-lora."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from h2tune.baselines.lora import ADAPTER, BOTH, LoraAdaptedModel
from h2tune.federation.messages import Download, Tensors

MIDDLE, OFFSET = "middle", "offset"
SMALL = (MIDDLE, OFFSET)

Frames = Callable[[str, nn.Module, int], tuple[Tensor, Tensor]]
"""Module, its base layer and a rank → A (r, d_in) and B (d_out, r)."""


class Between(nn.Module):
    """Replaces a LoRA down projection by x → R A x + q: A (r, d_in) is frozen, R (r, r) and q (r) are trained.

    Args:
        down: A.
        offset: Whether q is used.
    """

    def __init__(self, down: Tensor, *, offset: bool) -> None:
        super().__init__()
        rank = down.shape[0]
        self.weight = nn.Buffer(down)  # PEFT reads the dtype of a down projection's weight
        self.middle = nn.Parameter(down.new_zeros(rank, rank))
        self.offset = nn.Parameter(down.new_zeros(rank)) if offset else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.weight), self.middle, self.offset)


class MiddleAdaptedModel(LoraAdaptedModel):
    """Trained middle parts (R and q) in some modules, and plain, private LoRA in the others.

    Between `load_state` and `receive` the adapter is one plain LoRA adapter, for export: A ← R A, and q becomes a bias
    of B.

    Args:
        arguments: As in `LoraAdaptedModel`.
        frames: Returns the frozen A and B of a module.
        stems: Module with middle parts → the name of these in messages.
        offset: Whether q is used.
        options: As in `LoraAdaptedModel`.
    """

    def __init__(
        self, *arguments: Any, frames: Frames, stems: Mapping[str, str], offset: bool = False, **options: Any
    ) -> None:
        self.stems, self.offset = stems, offset
        super().__init__(*arguments, trained=(*BOTH, *SMALL), shared=SMALL, bias=offset, **options)
        self.frames = {m: frames(m, self.layers[m].get_base_layer(), self.enrolment.rank) for m in stems}
        self._unfold()

    def parameters(self) -> dict[str, nn.Parameter]:
        plain = {n: p for n, p in super().parameters().items() if n.rpartition(".")[0] not in self.stems}
        for module, stem in self.stems.items():
            between = self.layers[module].lora_A[ADAPTER]
            plain |= {f"{stem}.{kind}": p for kind, p in between.named_parameters() if kind in SMALL}
        return plain

    def receive(self, download: Download) -> None:
        self._unfold()
        super().receive(download)

    def learned(self) -> Tensors:
        """Return the same from the model's state dict, without the names that `send` uses."""
        saved = self.model.state_dict()
        stems = {f"base_model.model.{module}.lora_A.{ADAPTER}": stem for module, stem in self.stems.items()}
        return {
            f"{stem}.{kind}": saved[f"{path}.{kind}"].cpu()
            for path, stem in stems.items()
            for kind in SMALL
            if f"{path}.{kind}" in saved
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        for module in self.stems:
            layer = self.layers[module]
            between, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
            if self.offset:
                up.bias.copy_(up.weight @ between.offset)
            layer.lora_A[ADAPTER] = nn.Linear(layer.in_features, self.enrolment.rank, bias=False)
            layer.lora_A[ADAPTER].weight = nn.Parameter(between.middle @ between.weight)

    @torch.no_grad()
    def _unfold(self) -> None:
        """Set the middle parts between the frozen frames to zero."""
        for module, (down, up) in self.frames.items():
            layer = self.layers[module]
            like = layer.lora_B[ADAPTER].weight
            layer.lora_A[ADAPTER] = Between(down.to(like), offset=self.offset)
            layer.lora_B[ADAPTER].weight.requires_grad_(False).copy_(up)
            if self.offset:
                layer.lora_B[ADAPTER].bias.zero_()


def weight_of(layer: nn.Module) -> Tensor:
    """Return the weight (d_out, d_in) of a base layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return (weight.T if isinstance(layer, Conv1D) else weight).detach().float()
