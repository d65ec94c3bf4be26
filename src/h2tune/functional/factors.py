"""A client's update in the shared slots: its factors, and N and C of equation (4); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune.functional import alignment
from h2tune.functional.masks import scatter

Place = tuple[int, str]
"""(block, role)."""


def contribution(
    increments: Mapping[Place, Float[Tensor, "r r"]],
    masks: Mapping[Place, Int[Tensor, " rr"]],
    relation: Float[Tensor, "D L"],
    roles: Sequence[str],
    size: int,
) -> tuple[Float[Tensor, "D roles R R"], Float[Tensor, "D roles R R"]]:
    """Return N and C of one client: its increments and its coverage, in shared slots: equation (4).

    Args:
        increments: ΔT of every (block, role).
        masks: Ω of every (block, role).
        relation: P.
        roles: Roles in the order of the result's second axis.
        size: R.
    """
    blocks = relation.new_zeros(relation.shape[1], len(roles), size, size)
    covered = torch.zeros_like(blocks)
    for i, role in enumerate(roles):
        for block in range(relation.shape[1]):
            if (block, role) in increments:
                index = masks[block, role]
                increment = increments[block, role].to(blocks.dtype)
                blocks[block, i] = scatter(increment, index, size)
                covered[block, i] = scatter(torch.ones_like(increment), index, size)
    return alignment.to_slots(relation, blocks), alignment.to_slots(relation, covered)


@dataclass(frozen=True)
class Route:
    """The slots to which some blocks are mapped by a relation, computed once for all roles with the same blocks.

    Args:
        flow: The columns of P of these blocks, with values below `alignment.TINY` set to zero (D, blocks).
        slots: Row of each non-zero value of `flow`: the slot (entries,).
        positions: Column of each: the position of the block (entries,).
        shares: The non-zero values themselves (entries,).
        total: Row sums of `flow` (D,).
        straight: Whether `flow` is the identity: block i maps to slot i alone.
    """

    flow: Tensor
    slots: Tensor
    positions: Tensor
    shares: Tensor
    total: Tensor
    straight: bool

    @classmethod
    def of(cls, relation: Float[Tensor, "D L"], blocks: Sequence[int]) -> Route:
        """Return the route of the given blocks under P."""
        flow = torch.where(relation > alignment.TINY, relation, 0.0)[:, list(blocks)]
        slots, positions = flow.nonzero(as_tuple=True)
        straight = flow.shape[0] == flow.shape[1] and torch.equal(flow, torch.eye(len(flow)))
        return cls(flow, slots, positions, flow[slots, positions], flow.sum(1), straight)

    def add(self, sums: Tensor, values: Tensor, weight: float) -> None:
        """Add w · flow · values (blocks, R, R) to sums (D, R, R)."""
        if self.straight:
            sums.add_(values, alpha=weight)
        elif len(self.slots) > 4 * self.flow.shape[1]:  # a relation that mixes all slots
            sums.view(len(sums), -1).addmm_(self.flow, values.flatten(1), alpha=weight)
        else:
            entries = (self.slots.tolist(), self.positions.tolist(), self.shares.tolist())
            for slot, position, share in zip(*entries, strict=True):
                sums[slot].add_(values[position], alpha=weight * share)


@dataclass(frozen=True)
class Factors:
    """One client's update as factors, as sent: equation (4) before it is multiplied out.

    Args:
        increments: Role → ΔT (blocks, r, r).
        masks: Role → Ω (blocks, r²), distinct entries; None for a client that uses the whole grid.
        blocks: Role → the blocks that have it, in the order of the first axis of `increments` and `masks`.
        relation: P (D, L).
        leading: r if every mask is the leading r × r block, else None.
        routes: Cache of routes by blocks; may be shared by updates with the same P.
    """

    increments: Mapping[str, Tensor]
    masks: Mapping[str, Tensor | None]
    blocks: Mapping[str, Sequence[int]]
    relation: Tensor
    leading: int | None = None
    routes: dict[tuple[int, ...], Route] = field(default_factory=dict)

    def route(self, role: str) -> Route:
        """Return the route of a role's blocks."""
        blocks = tuple(self.blocks[role])
        if blocks not in self.routes:
            self.routes[blocks] = Route.of(self.relation, blocks)
        return self.routes[blocks]


@dataclass(frozen=True)
class Dense:
    """One client's update multiplied out: N and C of equation (4), over the client's roles.

    Args:
        learned: N.
        coverage: C.
    """

    learned: Float[Tensor, "D some R R"]
    coverage: Float[Tensor, "D some R R"]

    @classmethod
    def of(cls, factors: Factors, roles: Sequence[str], size: int) -> Dense:
        """Return N and C of a client's factors.

        Args:
            factors: The client's update.
            roles: The client's roles, in the order of the second axis.
            size: R.
        """
        increments, masks = {}, {}
        for role, blocks in factors.blocks.items():
            index = factors.masks[role]
            for i, block in enumerate(blocks):
                increments[block, role] = factors.increments[role][i].float()
                masks[block, role] = torch.arange(size**2) if index is None else index[i].long()
        return cls(*contribution(increments, masks, factors.relation, roles, size))
