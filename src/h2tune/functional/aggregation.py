"""Aggregation of what clients learned into the shared middle matrices: equations (4) and (5); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune.functional import alignment
from h2tune.functional.masks import scatter

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
                blocks[block, i] = scatter(increment, index, size)
                covered[block, i] = scatter(torch.ones_like(increment), index, size)
    return alignment.to_slots(relation, blocks), alignment.to_slots(relation, covered)


@dataclass(frozen=True)
class Route:
    """Where some blocks go under a relation, worked out once for all roles that have the same blocks.

    Args:
        flow: P at these blocks, without what is tiny (D, blocks).
        slots: Slot of each way, a way being a part of P that is not zero (ways,).
        positions: Position of its block (ways,).
        shares: Its part of P (ways,).
        total: Share of all blocks together in each slot (D,).
        straight: Whether block i goes to slot i, whole.
    """

    flow: Tensor
    slots: Tensor
    positions: Tensor
    shares: Tensor
    total: Tensor
    straight: bool

    @classmethod
    def of(cls, relation: Float[Tensor, "D L"], blocks: Sequence[int]) -> Route:
        """Return the route of some blocks under P."""
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
            ways = (self.slots.tolist(), self.positions.tolist(), self.shares.tolist())
            for slot, position, share in zip(*ways, strict=True):
                sums[slot].add_(values[position], alpha=weight * share)


@dataclass(frozen=True)
class Factors:
    """What one client learned, as it travels: equation (4) before it is multiplied out.

    Args:
        increments: Role → ΔT (blocks, r, r).
        masks: Role → Ω (blocks, r²), distinct entries; None for a client that keeps the whole grid.
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


@dataclass(frozen=True)
class Dense:
    """What one client learned, multiplied out: N and C of equation (4), over the client's roles.

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
            factors: What the client sent.
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


class Sums:
    """The running sums of equation (5): one pass over the clients, whatever their number.

    Holds Σ w N, and Σ w C only once a client does not cover the whole grid: the coverage of one that does is the same
    on all entries of a slot. `step` makes G of them in place, so that three times G is all the memory it takes.

    Args:
        shape: Shape (D, roles, R, R) of G.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        slots, roles, size, _ = shape
        self.size = size
        # role by role: what is added is then in one piece
        self._learned = torch.zeros(roles, slots, size * size)
        self._rows = self._learned.view(roles, slots, size, size).unbind()
        self._even = torch.zeros(roles, slots)
        self._uneven: Tensor | None = None
        self._stepped = False

    @property
    def learned(self) -> Float[Tensor, "D roles R R"]:
        """Σ w N; a view, so that it can be changed in place."""
        return self._grids(self._learned).transpose(0, 1)

    @property
    def coverage(self) -> Float[Tensor, "D roles R R"]:
        """Σ w C."""
        return self._grids(self._coverage(slice(None))).transpose(0, 1)

    def _grids(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (self.size, self.size))

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
        alike: dict[tuple[int, ...], list[str]] = {}
        for role in factors.increments:
            alike.setdefault(tuple(factors.blocks[role]), []).append(role)
        for roles in alike.values():  # all at once where that is possible: a call costs more than few values
            route, positions = factors.route(roles[0]), [where[role] for role in roles]
            if factors.masks[roles[0]] is None:
                self._even.index_add_(
                    0, torch.tensor(positions), route.total.expand(len(roles), -1), alpha=weight
                )
                for role, position in zip(roles, positions, strict=True):
                    route.add(self._rows[position], factors.increments[role].float(), weight)
            elif route.straight and factors.leading is not None:
                corner = slice(factors.leading)
                for role, position in zip(roles, positions, strict=True):
                    increments = factors.increments[role].float()
                    self._rows[position][:, corner, corner].add_(increments, alpha=weight)
                    self._grids(self._part()[position])[:, corner, corner].add_(weight)
            else:
                self._add_entries(factors, roles, weight, positions)

    def _add_entries(
        self, factors: Factors, roles: Sequence[str], weight: float, where: Sequence[int]
    ) -> None:
        """Add what roles with the same blocks keep of the grid, all at once."""
        route, (_, slots, squared) = factors.route(roles[0]), self._learned.shape
        masks = torch.stack([mask for role in roles if (mask := factors.masks[role]) is not None])
        values = torch.stack([factors.increments[role].float().flatten(1) for role in roles])
        shares = torch.full((1, 1, 1), weight)
        if not route.straight:
            masks, values = masks[:, route.positions], values[:, route.positions]
            shares = (route.shares * weight)[None, :, None]
        rows = route.slots[None, :] + slots * torch.tensor(where)[:, None]  # (roles, ways)
        index = (masks + (rows * squared)[:, :, None]).flatten()
        self._learned.view(-1).scatter_add_(0, index, (values * shares).flatten())
        self._part().view(-1).scatter_add_(0, index, shares.expand_as(masks).flatten())

    def hold_back(self, role: int) -> None:
        """Forget what covered a role, as if nobody had: G stays as it is there."""
        self._even[role] = 0
        if self._uneven is not None:
            self._uneven[role] = 0

    def step(
        self, shared: Float[Tensor, "D roles R R"], rate: float = 1.0, over: float | None = None
    ) -> Float[Tensor, "D roles R R"]:
        """Return G + η · (Σ w N) / (Σ w C) where anyone covered an entry, and G elsewhere. Equation (5).

        The sums are used up.

        Args:
            shared: G.
            rate: η.
            over: What Σ w N is divided by in place of Σ w C, for the sum of increments instead of their mean.

        Raises:
            RuntimeError: They are used up.
        """
        if self._stepped:
            raise RuntimeError("these sums are used up")
        self._stepped = True
        # role by role: the parts of one are all the memory it takes
        for i, moved in enumerate(self._learned):
            coverage = self._coverage(i)
            empty = coverage <= alignment.TINY
            moved.div_(coverage if over is None else over).mul_(rate).masked_fill_(empty, 0.0)
            moved.add_(shared[:, i].flatten(1))
        self._uneven = None
        return self.learned.contiguous()
