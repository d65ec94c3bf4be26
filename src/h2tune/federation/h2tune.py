"""The h2tune strategy: the server's half of equations (3) to (5), on the wire format of an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from h2tune import alignment
from h2tune.adapter import sparsify
from h2tune.adapter.config import Basis
from h2tune.adapter.roles import ROLES
from h2tune.adapter.shared import Alignment
from h2tune.errors import H2TuneError
from h2tune.federation import robust, wire
from h2tune.federation.aggregate import Sums, contribution
from h2tune.federation.participant import H2TuneParticipant
from h2tune.federation.tolerance import Rule
from h2tune.federation.update import WIRE, Download, Enrolment, Spec, Tensors, Update, digest
from h2tune.training.schedule import Alternation

NAME = "shared"
"""Name of G in the server's state."""


class H2Tune:
    """Shares middle matrices of one common rank; A, B, scores and heads stay with the clients.

    Args:
        enrolments: The clients.
        shared_rank: R.
        slots: D.
        mask: How Ω is chosen.
        alignment_mode: Whether the relation is learned or by depth.
        temperature: τ of the relation.
        rate: η of equation (5).
        weighting: w_i: `"examples"` or `"uniform"`.
        wire_dtype: Type of ΔT and G on the wire.
        alternation: How the clients' phases take turns.
        alpha: LoRA's α.
        dropout: Dropout on the adapters' inputs.
        size_weight: λ_reg.
        drift_weight: λ_kl.
        distillation_weight: λ_kd.
        basis: Whether T lives between private A and B, or between frames, equation (8).
        basis_scale: s of equation (8).
        aggregation: `"mean"`, equation (5) as it is, or a robust rule; see `robust.step`.
        hostile: f, the hostile clients that a robust rule must bear.
        clip_norm: The bound of `"clip"`; by default the median of the clients' norms.
    """

    name = "h2tune"

    def __init__(
        self,
        enrolments: Sequence[Enrolment],
        *,
        shared_rank: int,
        slots: int,
        mask: sparsify.Mask = "entry",
        alignment_mode: Alignment = "learned",
        temperature: float = 1.0,
        rate: float = 1.0,
        weighting: str = "examples",
        wire_dtype: str = "float32",
        alternation: Alternation = "step",
        alpha: float = 16.0,
        dropout: float = 0.0,
        size_weight: float = 0.0,
        drift_weight: float = 0.0,
        distillation_weight: float = 0.0,
        basis: Basis = "free",
        basis_scale: float = 1.0,
        aggregation: Rule = "mean",
        hostile: int = 0,
        clip_norm: float | None = None,
    ) -> None:
        self.enrolments = {enrolment.name: enrolment for enrolment in enrolments}
        self.shared_rank, self.slots, self.mask = shared_rank, slots, mask
        self.alignment_mode, self.temperature = alignment_mode, temperature
        self.rate, self.weighting, self.wire_dtype = rate, weighting, wire_dtype
        self.alternation, self.alpha, self.dropout = alternation, alpha, dropout
        self.weights = (size_weight, drift_weight, distillation_weight)
        self.basis, self.basis_scale = basis, basis_scale
        self.aggregation, self.hostile, self.clip_norm = aggregation, hostile, clip_norm
        held = {role for enrolment in enrolments for role in enrolment.roles}
        self.roles = tuple(role for role in ROLES if role in held)
        for enrolment in enrolments:
            if enrolment.rank > shared_rank:
                raise H2TuneError(
                    f"rank {enrolment.rank} is above the common rank R = {shared_rank}",
                    where=f"client '{enrolment.name}'",
                    remedy="Raise server.shared_rank or lower the client's rank",
                )

    def roles_of(self, client: str) -> tuple[str, ...]:
        """Return the shared roles that a client has, in order."""
        return tuple(role for role in self.roles if role in self.enrolments[client].roles)

    def start(self) -> Tensors:
        return {NAME: torch.zeros(self.slots, len(self.roles), self.shared_rank, self.shared_rank)}

    def download(self, state: Mapping[str, Tensor], client: str, round_number: int) -> Download:
        """G of the client's roles in the wire type; nothing in the first round, when G is zero for all."""
        roles = self.roles_of(client)
        # contiguous, or slices of one tensor would be taken for tensors that share memory
        sent = {
            f"{NAME}.{role}": state[NAME][:, self.roles.index(role)].to(WIRE[self.wire_dtype]).contiguous()
            for role in roles
        }
        held = torch.stack([sent[f"{NAME}.{role}"].float() for role in roles], dim=1)
        return Download(round_number, sent if round_number else {}, digest({NAME: held}))

    def download_spec(self, client: str, round_number: int) -> Spec:
        if round_number == 0:
            return {}
        shape = (self.slots, self.shared_rank, self.shared_rank)
        return {f"{NAME}.{role}": (shape, self.wire_dtype) for role in self.roles_of(client)}

    def upload_spec(self, client: str, round_number: int) -> Spec:
        enrolment = self.enrolments[client]
        return wire.update_spec(
            {role: len(enrolment.roles[role]) for role in self.roles_of(client)},
            enrolment.rank,
            self.shared_rank,
            self.wire_dtype,
            masks=self.mask != "leading" and enrolment.rank < self.shared_rank,
            relation=(self.slots, enrolment.depth) if self.alignment_mode == "learned" else None,
        )

    def aggregate(
        self, state: Mapping[str, Tensor], updates: Sequence[Update]
    ) -> tuple[Tensors, dict[str, Any]]:
        """Equations (4) and (5); the updates are taken by client name, so their order means nothing."""
        updates = sorted(updates, key=lambda update: update.client)
        facts: dict[str, Any] = {}
        if self.aggregation == "mean":
            shared = self._mean(state[NAME], updates)
        else:
            shared, facts = self._robust(state[NAME], updates)
        change = shared - state[NAME]
        facts |= {
            "change": float(change.norm()),
            "change_by_role": {r: float(change[:, i].norm()) for i, r in enumerate(self.roles)},
            "norm": float(shared.norm()),
        }
        return {NAME: shared}, facts

    def _mean(self, shared: Tensor, updates: Sequence[Update]) -> Tensor:
        sums = Sums(shared.shape)
        for update in updates:
            learned, coverage, where = self._contribution(update)
            weight = float(update.examples) if self.weighting == "examples" else 1.0
            sums.add(learned, coverage, weight, where)
        return sums.step(shared, self.rate)

    def _robust(self, shared: Tensor, updates: Sequence[Update]) -> tuple[Tensor, dict[str, Any]]:
        """Return G after a robust rule, and what it did: how much of G was left, who was kept or clipped."""
        learned, coverage = (torch.zeros(len(updates), *shared.shape) for _ in range(2))
        for i, update in enumerate(updates):
            some, covered, where = self._contribution(update)
            learned[i][:, where], coverage[i][:, where] = some, covered
        found = robust.step(self.aggregation, learned, coverage, self.hostile, self.clip_norm)
        left = found.covered & ~found.decided
        facts: dict[str, Any] = {
            "aggregation": self.aggregation,
            "hostile": self.hostile,
            "left": float(left.sum() / found.covered.sum().clamp(min=1)),
            "left_by_role": {
                role: float(left[:, i].sum() / found.covered[:, i].sum().clamp(min=1))
                for i, role in enumerate(self.roles)
            },
        }
        names = [update.client for update in updates]
        if self.aggregation == "krum":
            facts["kept"] = [name for name, kept in zip(names, found.kept, strict=True) if kept]
        if found.bound is not None:
            facts |= {"clip_norm": found.bound, "norms": dict(zip(names, found.norms, strict=True))}
        return found.apply(shared, self.rate), facts

    def _contribution(self, update: Update) -> tuple[Tensor, Tensor, list[int]]:
        """Return N and C of an update, and where their roles are on G's second axis."""
        roles = self.roles_of(update.client)
        increments, masks, relation = self.read(update)
        learned, coverage = contribution(increments, masks, relation, roles, self.shared_rank)
        return learned, coverage, [self.roles.index(role) for role in roles]

    def read(
        self, update: Update
    ) -> tuple[dict[tuple[int, str], Tensor], dict[tuple[int, str], Tensor], Tensor]:
        """Return ΔT and Ω by (block, role), and P, of an update.

        Raises:
            H2TuneError: A mask or the relation is not what it must be.
        """
        enrolment = self.enrolments[update.client]
        increments, masks = {}, {}
        for role in self.roles_of(update.client):
            blocks = enrolment.roles[role]
            packed = update.tensors.get(f"mask.{role}")
            index = (
                wire.unpack_masks(packed, enrolment.rank, self.shared_rank)
                if packed is not None
                else self._constant_mask(enrolment.rank).expand(len(blocks), -1)
            )
            for i, block in enumerate(blocks):
                increments[block, role] = update.tensors[f"delta.{role}"][i].float()
                masks[block, role] = index[i]
        relation = update.tensors.get("relation")
        if relation is None:
            relation = alignment.fixed_relation(self.slots, enrolment.depth)
        elif bool((relation < 0).any()) or not torch.allclose(relation.sum(0), torch.ones(()), atol=1e-3):
            raise H2TuneError(
                "the relation's columns are no distributions", where=f"update of client '{update.client}'"
            )
        return increments, masks, relation

    def participant(
        self, base: PreTrainedModel, enrolment: Enrolment, *, heads: Sequence[str], seed: int
    ) -> H2TuneParticipant:
        return H2TuneParticipant(
            base,
            rank=enrolment.rank,
            shared_rank=self.shared_rank,
            slots=self.slots,
            roles=self.roles_of(enrolment.name),
            modules=list(enrolment.modules),
            mask=self.mask,
            alignment_mode=self.alignment_mode,
            temperature=self.temperature,
            wire_dtype=self.wire_dtype,
            alternation=self.alternation,
            alpha=self.alpha,
            dropout=self.dropout,
            weights=self.weights,
            basis=self.basis,
            basis_scale=self.basis_scale,
            heads=heads,
            seed=seed,
        )

    def _constant_mask(self, rank: int) -> Tensor:
        size = self.shared_rank
        return sparsify.choose(torch.zeros(size, size), rank, "leading")
