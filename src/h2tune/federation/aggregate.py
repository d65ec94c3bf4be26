"""Aggregation of what clients learned into the shared middle matrices: equations (4) and (5); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune import alignment
from h2tune.adapter import sparsify

Place = tuple[int, str]
"""A block and a role."""


def staleness_weight(rounds: int) -> float:
    """Return what the weight of an update that comes some rounds late is multiplied by: 1 / √(1 + rounds).

    As in FedBuff (arXiv 2106.06581), after FedAsync's polynomial (arXiv 1903.03934).
    """
    return float((1 + rounds) ** -0.5)


def contribution(
    increments: Mapping[Place, Float[Tensor, "r r"]],
    masks: Mapping[Place, Int[Tensor, " rr"]],
    relation: Float[Tensor, "D L"],
    roles: Sequence[str],
    size: int,
) -> tuple[Float[Tensor, "D roles R R"], Float[Tensor, "D roles R R"]]:
    """Return N and C of one client: its increments and its coverage, in shared slots. Equation (4).

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
                blocks[block, i] = sparsify.scatter(increment, index, size)
                covered[block, i] = sparsify.scatter(torch.ones_like(increment), index, size)
    return alignment.to_slots(relation, blocks), alignment.to_slots(relation, covered)


@dataclass(frozen=True)
class Route:
    """Where some blocks go under a relation, worked out once for all roles that have the same blocks.

    Args:
        flow: P at these blocks, without what is tiny (D, blocks).
        ways: (slot, block, share) of all that is not zero.
        total: Share of all blocks together in each slot (D,).
        straight: Whether block i goes to slot i, whole.
    """

    flow: Tensor
    ways: tuple[tuple[int, int, float], ...]
    total: Tensor
    straight: bool

    @classmethod
    def of(cls, relation: Float[Tensor, "D L"], blocks: Sequence[int]) -> Route:
        """Return the route of some blocks under P."""
        flow = torch.where(relation > alignment.TINY, relation, 0.0)[:, list(blocks)]
        slots, positions = flow.nonzero(as_tuple=True)
        shares = flow[slots, positions].tolist()
        ways = tuple(zip(slots.tolist(), positions.tolist(), shares, strict=True))
        straight = flow.shape[0] == flow.shape[1] and torch.equal(flow, torch.eye(len(flow)))
        return cls(flow, ways, flow.sum(1), straight)

    def add(self, sums: Tensor, values: Tensor, weight: float) -> None:
        """Add w · flow · values (blocks, R²) to sums (D, R²)."""
        if self.straight:
            sums.add_(values, alpha=weight)
        elif (
            len(self.ways) > 4 * self.flow.shape[1]
        ):  # a relation that mixes all slots: one product of matrices
            sums.addmm_(self.flow, values, alpha=weight)
        else:
            for slot, block, share in self.ways:
                sums[slot].add_(values[block], alpha=weight * share)

    def add_entries(self, sums: Tensor, values: Tensor, mask: Tensor, weight: float) -> None:
        """Add w · flow · values (blocks, r²), or one value for all, to the entries `mask` (blocks, r²) of sums."""
        if self.straight:
            sums.scatter_add_(1, mask, (values * weight).expand_as(mask))
            return
        slots, blocks, shares = (torch.tensor(part) for part in zip(*self.ways, strict=True))
        places = slots[:, None] * sums.shape[1] + mask[blocks]
        scaled = (shares * weight)[:, None] * (values[blocks] if values.dim() else values)
        sums.view(-1).index_add_(0, places.flatten(), scaled.expand_as(places).flatten())


@dataclass(frozen=True)
class Factors:
    """What one client learned, as it travels: equation (4) before it is multiplied out.

    Args:
        increments: Role → ΔT (blocks, r, r).
        masks: Role → Ω (blocks, r²), of distinct entries; None for a client that keeps the whole grid.
        blocks: Role → the blocks that have it, in the order of the others' first axis.
        relation: P (D, L).
        leading: r, where all masks are the leading r × r.
        routes: What was worked out of P so far; may be kept for updates with the same P.
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


class Sums:
    """The running sums of equation (5): one pass over the clients, whatever their number.

    Holds Σ w N, and Σ w C only once a client does not cover the whole grid: the coverage of one that does is the same
    on all entries of a slot.

    Args:
        shape: Shape (D, roles, R, R) of G.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        slots, roles, size, _ = shape
        self.shape = (slots, roles, size, size)
        self._learned = torch.zeros(roles, slots, size * size)
        self._even = torch.zeros(roles, slots)
        self._uneven: Tensor | None = None

    @property
    def learned(self) -> Float[Tensor, "D roles R R"]:
        """Σ w N; a view, so that it can be changed in place."""
        size = self.shape[-1]
        return self._learned.unflatten(-1, (size, size)).transpose(0, 1)

    @property
    def coverage(self) -> Float[Tensor, "D roles R R"]:
        """Σ w C."""
        size = self.shape[-1]
        return self._coverage(slice(None)).unflatten(-1, (size, size)).transpose(0, 1)

    def _coverage(self, role: int | slice) -> Tensor:
        """Return Σ w C of a role, or of all, with the grid flat; may be an expanded view."""
        even = self._even[role].unsqueeze(-1)
        return even.expand_as(self._learned[role]) if self._uneven is None else self._uneven[role] + even

    def _part(self) -> Tensor:
        """Return where the coverage of clients goes that keep a part of the grid."""
        if self._uneven is None:
            self._uneven = torch.zeros_like(self._learned)
        return self._uneven

    def add(
        self,
        learned: Float[Tensor, "D some R R"],
        coverage: Float[Tensor, "D some R R"],
        weight: float,
        where: Sequence[int],
    ) -> None:
        """Add w · N and w · C at the roles `where` (positions on G's second axis)."""
        covered = self._part()
        for i, position in enumerate(where):
            self._learned[position].add_(learned[:, i].flatten(1), alpha=weight)
            covered[position].add_(coverage[:, i].flatten(1), alpha=weight)

    def add_factors(self, factors: Factors, weight: float, where: Mapping[str, int]) -> None:
        """Add w · N and w · C of equation (4) without writing N and C down: `add` of `contribution`, but faster.

        Args:
            factors: What a client sent.
            weight: w.
            where: Role → its position on G's second axis.
        """
        for role, increments in factors.increments.items():
            route, values = factors.route(role), increments.float().flatten(1)
            mask, position = factors.masks[role], where[role]
            if mask is None:
                self._even[position].add_(route.total, alpha=weight)
                route.add(self._learned[position], values, weight)
            elif route.straight and factors.leading is not None:
                corner = slice(factors.leading)
                grids = self._learned[position].view(self.shape[0], *self.shape[2:])
                grids[:, corner, corner].add_(increments.float(), alpha=weight)
                self._part()[position].view_as(grids)[:, corner, corner].add_(weight)
            else:
                route.add_entries(self._learned[position], values, mask, weight)
                route.add_entries(self._part()[position], torch.ones(()), mask, weight)

    def hold_back(self, role: int) -> None:
        """Forget what covered a role, as if nobody had: G stays as it is there."""
        self._even[role] = 0
        if self._uneven is not None:
            self._uneven[role] = 0

    def step(
        self, shared: Float[Tensor, "D roles R R"], rate: float = 1.0, over: float | None = None
    ) -> Float[Tensor, "D roles R R"]:
        """Return G + η · (Σ w N) / (Σ w C) where anyone covered an entry, and G elsewhere. Equation (5).

        Args:
            shared: G.
            rate: η.
            over: What Σ w N is divided by in place of Σ w C, for the sum of increments instead of their mean.
        """
        following = shared.clone()
        for i in range(self.shape[1]):  # role by role: the parts of one role are all the memory it takes
            coverage = self._coverage(i)
            covered = coverage > alignment.TINY
            parts = torch.where(covered, coverage, 1) if over is None else over
            following[:, i] += rate * (torch.where(covered, self._learned[i], 0) / parts).view_as(
                following[:, i]
            )
        return following
