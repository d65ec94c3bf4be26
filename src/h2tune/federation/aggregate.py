"""Aggregation of what clients learned into the shared middle matrices: equations (4) and (5); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


class Sums:
    """The running sums of equation (5): one pass over the clients, whatever their number.

    Args:
        shape: Shape (D, roles, R, R) of G.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.learned = torch.zeros(*shape)
        self.coverage = torch.zeros(*shape)

    def add(
        self,
        learned: Float[Tensor, "D some R R"],
        coverage: Float[Tensor, "D some R R"],
        weight: float,
        where: Sequence[int],
    ) -> None:
        """Add w · N and w · C at the roles `where` (positions on G's second axis)."""
        for i, position in enumerate(where):
            self.learned[:, position].add_(learned[:, i], alpha=weight)
            self.coverage[:, position].add_(coverage[:, i], alpha=weight)

    def step(self, shared: Float[Tensor, "D roles R R"], rate: float = 1.0) -> Float[Tensor, "D roles R R"]:
        """Return G + η · (Σ w N) / (Σ w C) where anyone covered an entry, and G elsewhere. Equation (5)."""
        covered = self.coverage > alignment.TINY
        mean = torch.where(covered, self.learned, 0) / torch.where(covered, self.coverage, 1)
        return shared + rate * mean
