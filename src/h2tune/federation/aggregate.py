"""Aggregation of what clients learned into the shared middle matrices: equations (4) and (5); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune import alignment
from h2tune.adapter import sparsify

Place = tuple[int, str]
"""A block and a role."""


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
class Factors:
    """What one client learned, as it travels: equation (4) before it is multiplied out.

    Args:
        increments: Role → ΔT (blocks, r, r).
        masks: Role → Ω (blocks, r²), of distinct entries; None for a client that keeps the whole grid.
        blocks: Role → the blocks that have it, in the order of the others' first axis.
        relation: P (D, L).
    """

    increments: Mapping[str, Tensor]
    masks: Mapping[str, Tensor | None]
    blocks: Mapping[str, Sequence[int]]
    relation: Tensor


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
        relation = torch.where(factors.relation > alignment.TINY, factors.relation, 0.0) * weight
        for role, increments in factors.increments.items():
            flow, values = relation[:, list(factors.blocks[role])], increments.float().flatten(1)
            mask, position = factors.masks[role], where[role]
            if mask is None:
                self._even[position] += flow.sum(1)
                _add_flow(self._learned[position], flow, values)
            else:
                _add_entries(self._learned[position], flow, values, mask)
                _add_entries(self._part()[position], flow, torch.ones(()), mask)

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


def _add_flow(sums: Tensor, flow: Tensor, values: Tensor) -> None:
    """Add flow (D, blocks) · values (blocks, R²) to sums (D, R²)."""
    ways = flow.nonzero().tolist()
    if len(ways) > 4 * flow.shape[1]:  # a relation that mixes all slots: one product of matrices
        sums.addmm_(flow, values)
        return
    rates = flow[flow != 0]
    if (
        flow.shape[0] == flow.shape[1] == len(ways)
        and all(g == b for g, b in ways)
        and bool((rates == rates[0]).all())
    ):
        sums.add_(values, alpha=float(rates[0]))  # equal depth, block by block
        return
    for (slot, block), share in zip(ways, rates.tolist(), strict=True):
        sums[slot].add_(values[block], alpha=share)


def _add_entries(sums: Tensor, flow: Tensor, values: Tensor, mask: Tensor) -> None:
    """Add flow (D, blocks) · values (blocks, r²), or one value for all, to the entries `mask` (blocks, r²) of sums."""
    slots, blocks = flow.nonzero(as_tuple=True)
    shares = flow[slots, blocks, None] * (values[blocks] if values.dim() else values)
    places = slots[:, None] * sums.shape[1] + mask[blocks]
    sums.view(-1).index_add_(0, places.flatten(), shares.expand_as(places).flatten())
