"""Aggregation of clients' updates into the shared middle matrices: equation (5); pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from h2tune.functional import alignment
from h2tune.functional.factors import Factors


def staleness_weight(rounds: int) -> float:
    """Return the factor on the weight of an update that arrives some rounds late: 1 / √(1 + rounds).

    As in FedBuff (arXiv 2106.06581), after FedAsync's polynomial (arXiv 1903.03934).
    """
    return float((1 + rounds) ** -0.5)


class Sums:
    """The running sums of equation (5): one pass over the clients, in memory that does not depend on their number.

    Stores Σ w N. Σ w C is stored in full only once a client covers a part of the grid: the coverage of a client that
    covers all of it is one number per slot. `step` computes G in place, so peak memory is three times the size of G.

    Args:
        shape: Shape (D, roles, R, R) of G.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        slots, roles, size, _ = shape
        self.size = size
        # role first, so that each addition is to contiguous memory
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
        result: Tensor = flat.unflatten(-1, (self.size, self.size))
        return result

    def _coverage(self, role: int | slice) -> Tensor:
        """Return Σ w C of one role or of all, with the grid flattened; may be an expanded view."""
        even = self._even[role].unsqueeze(-1)
        return even.expand_as(self._learned[role]) if self._uneven is None else self._uneven[role] + even

    def _part(self) -> Tensor:
        """Return Σ w C of the clients that cover a part of the grid; allocates it on first use."""
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
        """Add w · N and w · C of equation (4) without computing N and C: equals `add` of `contribution`, but faster.

        Args:
            factors: A client's update.
            weight: w.
            where: Role → its position on G's second axis.
        """
        alike: dict[tuple[int, ...], list[str]] = {}
        for role in factors.increments:
            alike.setdefault(tuple(factors.blocks[role]), []).append(role)
        for roles in alike.values():  # batched where possible: for small tensors the calls dominate
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
        """Add the masked entries of roles with the same blocks, in one scatter."""
        route, (_, slots, squared) = factors.route(roles[0]), self._learned.shape
        masks = torch.stack([mask for role in roles if (mask := factors.masks[role]) is not None])
        values = torch.stack([factors.increments[role].float().flatten(1) for role in roles])
        shares = torch.full((1, 1, 1), weight)
        if not route.straight:
            masks, values = masks[:, route.positions], values[:, route.positions]
            shares = (route.shares * weight)[None, :, None]
        rows = route.slots[None, :] + slots * torch.tensor(where)[:, None]  # (roles, entries)
        index = (masks + (rows * squared)[:, :, None]).flatten()
        self._learned.view(-1).scatter_add_(0, index, (values * shares).flatten())
        self._part().view(-1).scatter_add_(0, index, shares.expand_as(masks).flatten())

    def hold_back(self, role: int) -> None:
        """Set the coverage of a role to zero, so that `step` leaves G unchanged there."""
        self._even[role] = 0
        if self._uneven is not None:
            self._uneven[role] = 0

    def step(
        self,
        shared: Float[Tensor, "D roles R R"],
        rate: float = 1.0,
        over: float | None = None,
        least: float = alignment.TINY,
    ) -> Float[Tensor, "D roles R R"]:
        """Return G + η · (Σ w N) / (Σ w C) where anyone covered an entry, and G elsewhere. Equation (5).

        Consumes the sums: it can be called once.

        Args:
            shared: G.
            rate: η.
            over: Divisor of Σ w N in place of Σ w C, for the sum of increments instead of their mean.
            least: Coverage Σ w C up to which an entry stays as it is; larger under noise, which would be divided by it.

        Raises:
            RuntimeError: It was called before.
        """
        if self._stepped:
            raise RuntimeError("step was already called on these sums")
        self._stepped = True
        # role by role, so that temporaries have the size of one role
        for i, moved in enumerate(self._learned):
            coverage = self._coverage(i)
            empty = coverage <= least
            moved.div_(coverage if over is None else over).mul_(rate).masked_fill_(empty, 0.0)
            moved.add_(shared[:, i].flatten(1))
        self._uneven = None
        return self.learned.contiguous()
