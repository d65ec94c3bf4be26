"""How an update's factors (ΔT, Ω, P) are laid out on the wire, and how the server reads them; see METHOD's (4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from h2tune.adapter.shared import Alignment
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune import wire
from h2tune.federation.messages import Enrolment, Spec, Update
from h2tune.functional import alignment
from h2tune.functional.aggregation import Factors, Place, Route
from h2tune.functional.masks import Mask, choose_mask


class FactorFormat:
    """Names, shapes and types of factors in one federation, and what they mean.

    Args:
        shared_rank: R.
        slots: D.
        mask: How Ω is chosen; `"leading"` ones are known and not sent.
        alignment_mode: A relation by depth is known and not sent.
        wire_dtype: Type of ΔT.
    """

    def __init__(
        self,
        shared_rank: int,
        slots: int,
        mask: Mask,
        alignment_mode: Alignment,
        wire_dtype: str,
    ) -> None:
        self.shared_rank, self.slots, self.mask = shared_rank, slots, mask
        self.alignment_mode, self.wire_dtype = alignment_mode, wire_dtype
        self._fixed: dict[int, tuple[Tensor, dict[tuple[int, ...], Route]]] = {}  # by depth: P, its routes

    def spec(self, enrolment: Enrolment, roles: Sequence[str]) -> Spec:
        """Return names, shapes and types of ΔT, Ω where scores chose it, and P where it is learned."""
        return wire.update_spec(
            {role: len(enrolment.roles[role]) for role in roles},
            enrolment.rank,
            self.shared_rank,
            self.wire_dtype,
            masks=self.mask != "leading" and enrolment.rank < self.shared_rank,
            relation=(self.slots, enrolment.depth) if self.alignment_mode == "learned" else None,
        )

    def read(self, update: Update, enrolment: Enrolment, roles: Sequence[str]) -> Factors:
        """Return what an update holds.

        Raises:
            H2TuneError: A mask or the relation is not what it must be.
        """
        rank, blocks = enrolment.rank, {role: enrolment.roles[role] for role in roles}
        masks = self._masks(update, rank, {role: len(some) for role, some in blocks.items()})
        relation, routes = update.tensors.get("relation"), dict[tuple[int, ...], Route]()
        if relation is None:
            if enrolment.depth not in self._fixed:
                self._fixed[enrolment.depth] = (alignment.fixed_relation(self.slots, enrolment.depth), {})
            relation, routes = self._fixed[enrolment.depth]
        elif bool((relation < 0).any()) or not torch.allclose(relation.sum(0), torch.ones(()), atol=1e-3):
            raise H2TuneError(
                "the relation's columns are no distributions", where=f"update of client '{update.client}'"
            )
        increments = {role: wire.read_matrices("delta", role, update.tensors) for role in roles}
        leading = rank if self.mask == "leading" else None
        return Factors(increments, masks, blocks, relation, leading, routes)

    def apart(
        self, update: Update, enrolment: Enrolment, roles: Sequence[str]
    ) -> tuple[dict[Place, Tensor], dict[Place, Tensor], Tensor]:
        """Return ΔT and Ω by (block, role), and P.

        Raises:
            H2TuneError: As `read`.
        """
        factors = self.read(update, enrolment, roles)
        increments, masks = {}, {}
        for role, blocks in factors.blocks.items():
            index = factors.masks[role]
            for i, block in enumerate(blocks):
                increments[block, role] = factors.increments[role][i].float()
                masks[block, role] = torch.arange(self.shared_rank**2) if index is None else index[i]
        return increments, masks, factors.relation

    def _masks(self, update: Update, rank: int, counts: Mapping[str, int]) -> dict[str, Tensor | None]:
        """Return by role Ω (blocks, r²), or None where it is the whole grid; `counts` are its blocks."""
        if rank == self.shared_rank:
            return dict.fromkeys(counts)
        if self.mask == "leading":
            scores = torch.zeros(self.shared_rank, self.shared_rank)
            index = choose_mask(scores, rank, "leading")
            return {role: index.expand(count, -1) for role, count in counts.items()}
        packed = torch.cat([update.tensors[f"mask.{role}"] for role in counts])
        masks = wire.unpack_masks(packed, rank, self.shared_rank)  # all roles at once
        return dict(zip(counts, masks.split(list(counts.values())), strict=True))
