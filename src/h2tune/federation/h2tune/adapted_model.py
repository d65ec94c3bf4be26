"""The h2tune adapter on a client's model: loads what the server sends, and returns the client's update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.adapter import H2TuneConfig
from h2tune.adapter.export import save_lora
from h2tune.adapter.heads import keep_in_float32
from h2tune.adapter.shared import SharedMiddle
from h2tune.adapter.state import (
    load_private_state,
    phase_parameters,
    private_state,
    private_tensors,
    take_off,
)
from h2tune.federation.h2tune import wire
from h2tune.federation.h2tune.carryover import ADAPTER, PREFIXES, Carryover
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.messages import Download, Enrolment, Tensors, digest
from h2tune.federation.strategy import AdaptedModel
from h2tune.quiet import quiet
from h2tune.training.encode import Encoded
from h2tune.training.schedule import Alternation
from h2tune.training.start import start_from_labels
from h2tune.training.terms import Terms

NOISE = 1e-6
"""Norm of a frame B₀, relative to the median of all modules, that counts as none: see `set_frames`."""


class H2TuneAdaptedModel(AdaptedModel):
    """An h2tune adapter on a base model, and its steps in a round.

    Args:
        base: The base model; `detach` returns it unchanged.
        enrolment: The client: its rank and its adapted modules.
        settings: The settings of the method.
        roles: The client's shared roles, in order.
        heads: Modules trained besides the adapter.
        seed: Seed of A and S, common to all clients of one base model.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        enrolment: Enrolment,
        settings: H2TuneSettings,
        *,
        roles: Sequence[str],
        heads: Sequence[str],
        seed: int,
    ) -> None:
        config = H2TuneConfig(
            r=enrolment.rank,
            shared_rank=settings.shared_rank,
            alpha=settings.alpha,
            dropout=settings.dropout,
            mask=settings.mask,
            basis=settings.basis,
            basis_scale=settings.basis_scale,
            target_modules=list(enrolment.modules),
            modules_to_save=list(heads) or None,
            init_seed=seed,
        )
        self.base, self.settings = base, settings
        self.heads = {name: base.get_submodule(name) for name in heads}
        with quiet():
            self.model = get_peft_model(base, config)
        keep_in_float32(self.model, heads)
        self.shared = SharedMiddle(
            self.model, roles, settings.slots, settings.alignment, settings.temperature
        )
        self.alternation: Alternation = "joint"
        self.carryover = Carryover(self.shared, settings.wire_dtype)
        self.received: dict[tuple[int, str], Tensor] = {}
        self._phases: dict[str, dict[str, nn.Parameter]] | None = None
        self._idle: set[str] = set()  # beginnings of the names of parameters between degenerate frames

    def phases(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        if self._phases is None:  # a scan of the whole model
            in_shared, in_specific = phase_parameters(self.model, self.shared)
            self._phases = {"shared": in_shared, "specific": in_specific}
        return self._phases

    def terms(self) -> Terms:
        settings = self.settings
        return Terms(
            settings.size_weight,
            settings.drift_weight,
            settings.distillation_weight,
            self._middles,
            self.carryover.previous_middles(self.received),
        )

    def receive(self, download: Download) -> None:
        """Choose Ω from the scores, load G, set Δ to zero; a client's first round trains all phases jointly.

        Where T is private, Ω and Δ of the last round stay, and G is zero.
        """
        first = not self.carryover and not self.received
        kept = {} if first or self.settings.shares_middles else self._deltas()
        if kept:
            self._load_nothing()
            for place, delta in kept.items():
                self.shared.layers[place].h2tune_delta[ADAPTER].data.copy_(delta)
            self.alternation = self.settings.alternation
            return
        self.shared.choose_masks(self.settings.mask)
        size = self.shared.size
        shared = torch.zeros(self.shared.slots, len(self.shared.roles), size, size)
        for i, role in enumerate(self.shared.roles):
            if download.tensors:
                shared[:, i] = wire.read_matrices("shared", role, download.tensors)
        self.shared.load(shared)
        self.received = self.shared.middles()
        self.alternation = "joint" if first else self.settings.alternation

    def prepare(
        self, rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, *, causal: bool, batch_size: int
    ) -> None:
        """Initialise T from the labels if the settings ask for it; the initial T is a part of the update."""
        if self.settings.start_norm:
            blocks = range(self.shared.depth - self.settings.start_blocks, self.shared.depth)
            layers = {p: layer for p, layer in self.shared.layers.items() if p[0] in blocks}
            start_from_labels(
                self.base,
                layers,
                rows,
                tokenizer,
                causal=causal,
                batch_size=batch_size,
                norm=self.settings.start_norm,
                mask=self.settings.mask,
            )

    def loaded_digest(self) -> str:
        return (
            digest({"shared": self.shared.shared}) if self.shared.shared is not None else "nothing was loaded"
        )

    def set_aside(self) -> None:
        """Set M to zero: a client that nobody can teach trains plain LoRA, whatever the others learned."""
        self._load_nothing()

    def _load_nothing(self) -> None:
        size = self.shared.size
        self.shared.load(torch.zeros(self.shared.slots, len(self.shared.roles), size, size))
        self.received = self.shared.middles()

    def _deltas(self) -> dict[tuple[int, str], Tensor]:
        """Return a copy of Δ (r, r) of every (block, role)."""
        return {
            place: layer.h2tune_delta[ADAPTER].detach().clone() for place, layer in self.shared.layers.items()
        }

    def send(self) -> Tensors:
        """Return ΔT = T − T as received, Ω if scores choose it, and P if it is learned."""
        return self._update(self.shared.middles()) if self.settings.shares_middles else {}

    def learned(self) -> Tensors:
        """Return the same ΔT, read from the layers one by one, independently of the code of `send`."""
        if not self.settings.shares_middles:
            return {}
        middles = {place: layer.middle(ADAPTER).detach() for place, layer in self.shared.layers.items()}
        tensors: Tensors = {}
        for role in self.shared.roles:
            tensors |= wire.write_matrices(
                "delta", role, self._increments(role, middles), self.settings.wire_dtype
            )
        return tensors

    def facts(self) -> dict[str, Any]:
        relation = self.shared.relation().detach().cpu()
        return {
            "relation": [[round(float(value), 4) for value in row] for row in relation],
            "coverage": _coverage(self.shared.masks().values(), self.shared.size),
        }

    def set_frames(self, frames: Mapping[str, Tensor]) -> None:
        """Set A₀ and B₀ of every module, given as NAME.down and NAME.up.

        A module whose outputs are the same for all public texts has a B₀ of rounding noise, and its T learns nothing:
        in a decoder whose prompts all end in one token, these are the attention inputs of the first block.
        """
        names = sorted({name.rpartition(".")[0] for name in frames})
        for name in names:
            layer = self.model.get_submodule(f"base_model.model.{name}")
            layer.set_frames(ADAPTER, frames[f"{name}.down"], frames[f"{name}.up"])
        sizes = torch.stack([frames[f"{name}.up"].float().norm() for name in names])
        idle = [name for name, size in zip(names, sizes, strict=True) if size <= NOISE * sizes.median()]
        self._idle = {f"base_model.model.{name}.h2tune_" for name in idle}

    def idle(self) -> frozenset[str]:
        if not self._idle:
            return frozenset()
        shared = self.phases()["shared"]
        return frozenset(name for name in shared if any(name.startswith(place) for place in self._idle))

    def state(self) -> Tensors:
        middles = self.shared.middles()
        rounded = {}
        if self.settings.wire_dtype == "int8":
            rounded = {role: self._increments(role, middles) for role in self.shared.roles}
        remainders = {
            place: remainder
            for role, increments in rounded.items()
            for place, remainder in zip(self._places(role), wire.remainder(increments), strict=True)
        }
        return private_state(self._private) | self.carryover.state(middles, remainders)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        private = {name: t for name, t in state.items() if not name.startswith(PREFIXES)}
        load_private_state(self._private, private)
        self.carryover.load_state(state)

    @cached_property
    def _private(self) -> dict[str, Tensor]:
        """The tensors of the private state; finding them scans the whole model."""
        return private_tensors(self.model, self.shared)

    def save_lora(self, folder: Path) -> None:
        """Write the adapter as the plain LoRA that computes the same."""
        save_lora(self.model, folder)

    def detach(self) -> PreTrainedModel:
        self.shared.remove()
        take_off(self.model, self.heads)
        return self.base

    def _places(self, role: str) -> list[tuple[int, str]]:
        return sorted(place for place in self.shared.layers if place[1] == role)

    def _update(self, middles: Mapping[tuple[int, str], Tensor]) -> Tensors:
        tensors: Tensors = {}
        masks = self.shared.masks()
        for role in self.shared.roles:
            places = self._places(role)
            increments = self._increments(role, middles)
            sent = wire.write_matrices("delta", role, increments, self.settings.wire_dtype)
            tensors |= {name: tensor.cpu() for name, tensor in sent.items()}
            if self.settings.mask != "leading" and increments.shape[-1] < self.shared.size:
                packed = wire.pack_masks([masks[place].cpu() for place in places], self.shared.size)
                tensors[f"mask.{role}"] = packed
        if self.shared.alignment_mode == "learned":
            tensors["relation"] = self.shared.relation().detach().float().cpu().contiguous()
        return tensors

    def _increments(self, role: str, middles: Mapping[tuple[int, str], Tensor]) -> Tensor:
        """Return ΔT (modules, r, r) of a role, with the remainder of the last update's rounding added."""
        return torch.stack(
            [middles[p] - self.received[p] + self.carryover.remainder(p) for p in self._places(role)]
        )

    def _middles(self) -> Tensor:
        """Return T of all modules (modules, r²), with gradients."""
        layers = self.shared.layers.values()
        return torch.stack([layer.middle(ADAPTER).flatten() for layer in layers])


def _coverage(masks: Any, size: int, cells: int = 16) -> list[list[float]]:
    """Return the fraction of modules whose mask has each entry of the grid, pooled to at most 16 × 16 cells."""
    masks = list(masks)
    counts = torch.zeros(size * size)
    for index in masks:
        counts.index_add_(0, index.cpu(), torch.ones(index.numel()))
    grid = (counts / len(masks)).view(1, 1, size, size)
    pooled = torch.nn.functional.adaptive_avg_pool2d(grid, min(size, cells))[0, 0]
    return [[round(float(value), 4) for value in row] for row in pooled]
