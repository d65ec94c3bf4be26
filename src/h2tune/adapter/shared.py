"""The shared middle matrices in a model: G as received, the relation P of slots and blocks, T as learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn

from h2tune.adapter.layer import H2TuneLayer
from h2tune.errors import H2TuneError
from h2tune.functional import alignment
from h2tune.functional.alignment import Alignment
from h2tune.functional.masks import Mask, gather


class SharedMiddle(nn.Module):
    """Binds an adapter's layers to the shared middle matrices G through the relation P. Equations (2) and (3).

    While the relation is trained, every forward pass computes M, with a gradient to Z. Otherwise M is computed once
    per change and stored in the layers.

    Args:
        model: A PEFT model with an h2tune adapter, as from `peft.get_peft_model`.
        roles: Roles whose middle matrices are shared, in the order of G's second axis.
        slots: Number D of shared slots.
        alignment_mode: `"learned"` trains Z; `"depth"` fixes the relation by relative depth (the ablation).
        temperature: τ of the softmax.
        adapter_name: The adapter in `model`.
    """

    def __init__(
        self,
        model: PeftModel,
        roles: Sequence[str],
        slots: int,
        alignment_mode: Alignment = "learned",
        temperature: float = 1.0,
        adapter_name: str = "default",
    ) -> None:
        super().__init__()
        self.roles, self.slots, self.temperature = tuple(roles), slots, temperature
        self.adapter_name, self.alignment_mode = adapter_name, alignment_mode
        self.layers = bound_layers(model, adapter_name)
        """(block, role) → layer; a plain dictionary, so that the layers are not registered as submodules here."""
        absent = sorted({role for _, role in self.layers} - set(self.roles))
        if absent:
            raise H2TuneError(f"the federation shares no role {', '.join(absent)}", where="roles")
        self.depth = 1 + max(block for block, _ in self.layers)
        some = next(iter(self.layers.values()))
        self.size = some.h2tune_scores[adapter_name].shape[0]
        device = some.h2tune_delta[adapter_name].device
        self.logits = nn.Parameter(
            alignment.initial_logits(slots, self.depth).to(device), requires_grad=self.learns_relation
        )
        self.shared: Tensor | None = None
        """G (D, roles, R, R) as loaded; None before the first `load`."""
        self._baked_version = -1
        self._hook = model.register_forward_pre_hook(lambda *_: self.refresh())

    @property
    def learns_relation(self) -> bool:
        """Whether the relation is learned; with one slot every block uses that slot."""
        return self.alignment_mode == "learned" and self.slots > 1

    def relation(self) -> Tensor:
        """Return P (D, L)."""
        if self.alignment_mode == "depth":
            return alignment.fixed_relation(self.slots, self.depth).to(self.logits.device)
        return alignment.relation(self.logits, self.temperature)

    def load(self, shared: Tensor) -> None:
        """Load G, and set Δ to zero, as G contains the last round's change.

        Args:
            shared: G (D, roles, R, R).

        Raises:
            H2TuneError: If its shape does not fit the federation.
        """
        expected = (self.slots, len(self.roles), self.size, self.size)
        if tuple(shared.shape) != expected:
            raise H2TuneError(f"shared middle matrices of shape {tuple(shared.shape)}, expected {expected}")
        self.shared = shared.detach().to(self.logits.device, torch.float32)
        with torch.no_grad():
            for layer in self.layers.values():
                layer.h2tune_delta[self.adapter_name].zero_()
        self.bake()

    def choose_masks(self, mask: Mask) -> None:
        """Update Ω from the scores; between rounds only, as Δ must be zero where Ω changes."""
        for layer in self.layers.values():
            layer.choose_mask(self.adapter_name, mask)

    def refresh(self) -> None:
        """Update M before a forward pass; a hook of the model."""
        if self.shared is None:
            return
        if torch.is_grad_enabled() and self.logits.requires_grad:
            for layer, received in self._received():
                layer.live[self.adapter_name] = received
        elif self._baked_version != self.logits._version:
            self.bake()
        else:
            self._drop_live()

    @torch.no_grad()
    def bake(self) -> None:
        """Write M at Ω into the layers' buffers, without a gradient."""
        self._drop_live()
        for layer, received in self._received():
            layer.h2tune_received[self.adapter_name].copy_(received)
        self._baked_version = self.logits._version

    @torch.no_grad()
    def middles(self) -> dict[tuple[int, str], Tensor]:
        """Return a copy of T (r, r) of every (block, role)."""
        self.bake()
        return {place: layer.middle(self.adapter_name).clone() for place, layer in self.layers.items()}

    def masks(self) -> dict[tuple[int, str], Tensor]:
        """Return a copy of Ω (r²,) of every (block, role)."""
        return {place: layer.h2tune_index[self.adapter_name].clone() for place, layer in self.layers.items()}

    def remove(self) -> None:
        """Remove the hook from the model."""
        self._hook.remove()
        self._drop_live()

    def _received(self) -> list[tuple[H2TuneLayer, Tensor]]:
        if self.shared is None:
            return []
        blocks = alignment.to_blocks(self.relation(), self.shared)
        index = {role: i for i, role in enumerate(self.roles)}
        return [
            (layer, gather(blocks[block, index[role]], layer.h2tune_index[self.adapter_name]))
            for (block, role), layer in self.layers.items()
        ]

    def _drop_live(self) -> None:
        for layer in self.layers.values():
            layer.live.pop(self.adapter_name, None)


def bound_layers(model: nn.Module, adapter_name: str = "default") -> dict[tuple[int, str], H2TuneLayer]:
    """Return the adapter's layers by (block, role), in the model's order.

    Raises:
        H2TuneError: If a layer of the adapter has no known role.
    """
    layers: dict[tuple[int, str], H2TuneLayer] = {}
    for name, module in model.named_modules():
        if isinstance(module, H2TuneLayer) and adapter_name in module.h2tune_delta:
            if adapter_name not in module.place:
                raise H2TuneError(
                    f"layer '{name}' has no known role, so its middle matrix cannot be shared",
                    remedy="State its role in the client's `roles`",
                )
            layers[module.place[adapter_name]] = module
    return layers
