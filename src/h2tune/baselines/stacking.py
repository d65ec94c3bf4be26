"""The adapted model of FLoRA (arXiv 2409.05976): a fresh LoRA every round, on top of the stack of earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from h2tune.baselines.lora import ADAPTER, BOTH, DOWN, UP, LoraAdaptedModel
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Download, Tensors, digest
from h2tune.quiet import quiet
from h2tune.seeds import isolated

STACK = "stack"
"""Name of the frozen adapter, and prefix of its tensors in a client's state."""
OFFSET = "offset"
"""Name of the rank at which a download's part of the stack starts."""


class FloraAdaptedModel(LoraAdaptedModel):
    """LoRA with a frozen stack. Arguments as in `LoraAdaptedModel`.

    Between `load_state` and `receive` the adapter is one LoRA adapter of the total rank, for export.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, shared=BOTH, **options)
        self.alpha = self.model.peft_config[ADAPTER].lora_alpha
        self.stack: Tensors = {}

    def receive(self, download: Download) -> None:
        """Append the new part to the stack, and reset to a fresh A and B = 0."""
        if download.tensors:
            self._add(download.tensors)
        rank = self.enrolment.rank
        if download.round:
            self._resize(rank, self.alpha)
            self.reset(download.round)
        if self.stack:
            self._install()

    def _add(self, news: Mapping[str, Tensor]) -> None:
        offset = int(news[OFFSET])
        for name in self.parameters():
            axis = 0 if name.endswith(DOWN) else 1
            held = self.stack.get(name, news[name].narrow(axis, 0, 0))
            if held.shape[axis] < offset:
                raise H2TuneError("the client lacks an earlier part of the stack", where="download")
            self.stack[name] = torch.cat([held.narrow(axis, 0, offset), news[name]], dim=axis)

    def loaded_digest(self) -> str:
        """Return the checksum of the frozen adapter."""
        return digest(
            {
                f"{module}.{kind}": getattr(layer, kind)[STACK].weight.detach()
                for module, layer in self.layers.items()
                for kind in BOTH
                if STACK in getattr(layer, kind)
            }
        )

    def state(self) -> Tensors:
        return super().state() | {f"{STACK}/{name}": tensor for name, tensor in self.stack.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        own = {name: tensor for name, tensor in state.items() if not name.startswith(f"{STACK}/")}
        super().load_state(own)
        self.stack = {n.removeprefix(f"{STACK}/"): t for n, t in state.items() if n not in own}
        if not self.stack:
            return
        if self.stack.keys() != self.parameters().keys():
            raise H2TuneError("the stack has other modules than the model", where="private state")
        rank, scale = self.enrolment.rank, self.alpha / self.enrolment.rank
        whole = rank + next(t.shape[0] for n, t in self.stack.items() if n.endswith(DOWN))
        self._resize(whole, whole)
        for name, parameter in self.parameters().items():
            parts = (
                [own[name], self.stack[name]]
                if name.endswith(DOWN)
                else [own[name] * scale, self.stack[name]]
            )
            parameter.copy_(torch.cat(parts, dim=0 if name.endswith(DOWN) else 1))

    def _resize(self, rank: int, alpha: float) -> None:
        """Give the trained adapter another rank; its matrices are zero."""
        config = self.model.peft_config[ADAPTER]
        config.r, config.lora_alpha = rank, alpha
        for layer in self.layers.values():
            layer.r[ADAPTER], layer.lora_alpha[ADAPTER] = rank, alpha
            layer.scaling[ADAPTER] = alpha / rank
            for kind, shape in ((DOWN, (rank, layer.in_features)), (UP, (layer.out_features, rank))):
                linear = getattr(layer, kind)[ADAPTER]
                linear.weight = nn.Parameter(linear.weight.new_zeros(shape))

    @torch.no_grad()
    def _install(self) -> None:
        """Add the stack to the model as a second adapter, frozen, without dropout."""
        rank = next(t.shape[0] for n, t in self.stack.items() if n.endswith(DOWN))
        config = self.model.peft_config[ADAPTER]
        with quiet(), isolated(self.seed, STACK):
            self.model.add_adapter(
                STACK,
                LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    target_modules=list(self.layers),
                    fan_in_fan_out=config.fan_in_fan_out,
                ),
            )
        for module, layer in self.layers.items():
            layer.set_adapter([ADAPTER, STACK])
            for kind in BOTH:
                weight = getattr(layer, kind)[STACK].weight
                weight.requires_grad_(False).copy_(self.stack[f"{module}.{kind}"])
