"""Estimators of robust aggregation: medians, trimmed and mixed means, distances and norms over clients; pure.

They work on values V_i = N_i / C_i of the clients where they cover an entry; `robust` puts them together as rules.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

COVERED = 0.1
"""Least coverage with which a client counts as covering an entry: a tenth of one of its blocks. Relations are soft: at
the start a block has a share of 3e-4 in a neighbouring slot. That is no observation of the slot, and must not count as
one of 2 f + 1. A client of L blocks whose relation is uniform over D slots covers them if L / D ≥ 0.1."""

LARGEST = float(torch.finfo(torch.float32).max)
"""The largest finite float32."""


def slots(
    learned: Float[Tensor, "clients D roles R R"], coverage: Float[Tensor, "clients D roles R R"]
) -> Iterator[tuple[Float[Tensor, "clients roles R R"], Bool[Tensor, "clients roles R R"]]]:
    """Yield V (float64, since squares of float32 can overflow) and which entries are covered, slot by slot."""
    for slot in range(learned.shape[1]):
        covers = coverage[:, slot] >= COVERED
        values = learned[:, slot].double() / torch.where(covers, coverage[:, slot], 1.0).double()
        # sums of blocks can overflow: values that are not finite are replaced by the largest finite one
        values = values.nan_to_num(nan=LARGEST, posinf=LARGEST, neginf=-LARGEST)
        yield torch.where(covers, values, 0.0), covers


def along(clients: Tensor, like: Tensor) -> Tensor:
    """Return a tensor over clients, reshaped to broadcast over the entries of `like`."""
    return clients.view(-1, *[1] * (like.dim() - 1))


def median(
    values: Float[Tensor, "clients ..."], covers: Bool[Tensor, "clients ..."]
) -> Float[Tensor, " ..."]:
    """Return the median over the clients that cover an entry, 0 where none does."""
    ordered = torch.where(covers, values, torch.inf).sort(0).values
    number = covers.sum(0, keepdim=True)
    low = ordered.gather(0, ((number - 1) // 2).clamp(min=0))
    high = ordered.gather(0, (number // 2).clamp(max=len(values) - 1))
    return torch.where(number > 0, low / 2 + high / 2, 0.0)[0]


def trimmed(
    values: Float[Tensor, "clients ..."],
    covers: Bool[Tensor, "clients ..."],
    coverage: Float[Tensor, "clients ..."],
    count: int,
) -> Bool[Tensor, "clients ..."]:
    """Return which values remain after dropping the `count` largest and smallest of those that cover an entry.

    Ties go to the value with less coverage, so that the result does not depend on the order of clients.
    """
    by_coverage = coverage.argsort(dim=0, stable=True)
    ordered = torch.where(covers, values, torch.inf).gather(0, by_coverage)
    order = by_coverage.gather(0, ordered.argsort(dim=0, stable=True))
    rank = torch.empty_like(order).scatter_(
        0, order, along(torch.arange(len(values)), order).expand_as(order)
    )
    return covers & (rank >= count) & (rank < covers.sum(0) - count)


def mean(
    values: Float[Tensor, "clients ..."],
    use: Bool[Tensor, "clients ..."],
    coverage: Float[Tensor, "clients ..."],
) -> Float[Tensor, " ..."]:
    """Return the mean of the values in use, weighted by min(C, 1); 0 where none is."""
    voices = torch.where(use, coverage.double().clamp(0, 1), 0.0)
    total = voices.sum(0)
    return (torch.where(use, values, 0.0) * voices).sum(0) / torch.where(total > 0, total, 1.0)


def distances(
    learned: Float[Tensor, "clients D roles R R"], coverage: Float[Tensor, "clients D roles R R"]
) -> Float[Tensor, "clients clients"]:
    """Return the mean squared distance of each pair of clients over the entries that both cover; infinite if none.

    A mean, not a sum: a sum would put clients that cover many entries far from all others.
    """
    count = learned.shape[0]
    squares, common = torch.zeros(count, count).double(), torch.zeros(count, count).double()
    for values, covers in slots(learned, coverage):
        for i in range(count):
            both = covers & covers[i]
            difference = torch.where(both, values - values[i], 0.0)
            squares[i] += difference.square().flatten(1).sum(1)
            common[i] += both.flatten(1).sum(1)
    return torch.where(common > 0, squares / common.clamp(min=1), torch.inf)


def neighbours(apart: Float[Tensor, "clients clients"], hostile: int) -> Bool[Tensor, "clients clients"]:
    """Return for each client its n − f nearest clients, including itself; more only if distances tie."""
    apart = apart.clone().fill_diagonal_(0.0)
    last = apart.sort(1).values[:, len(apart) - hostile - 1]
    return (apart <= last[:, None]) & apart.isfinite()


def mixed(
    values: Float[Tensor, "clients ..."],
    covers: Bool[Tensor, "clients ..."],
    coverage: Float[Tensor, "clients ..."],
    near: Bool[Tensor, "clients clients"],
) -> Float[Tensor, "clients ..."]:
    """Return for each client the mean over its neighbours that cover an entry, weighted by min(C, 1)."""
    voices = torch.where(covers, coverage.double().clamp(0, 1), 0.0)
    total = torch.tensordot(near.double(), voices, 1)
    summed = torch.tensordot(near.double(), torch.where(covers, values, 0.0) * voices, 1)
    result: Tensor = summed / torch.where(total > 0, total, 1.0)
    return result


def nearest_together(apart: Float[Tensor, "clients clients"], hostile: int) -> Bool[Tensor, " clients"]:
    """Return the clients that multi-Krum keeps: n − f, more only if scores tie.

    A client that shares entries with fewer than n − f − 2 others has no finite score and is dropped.
    """
    count, apart = len(apart), apart.clone().fill_diagonal_(torch.inf)
    scores = apart.sort(1).values[:, : count - hostile - 2].sum(1)
    last = scores.sort().values[count - hostile - 1]
    return (scores <= last) & scores.isfinite()


def clipping(
    learned: Float[Tensor, "clients D roles R R"],
    coverage: Float[Tensor, "clients D roles R R"],
    clip_norm: float | None,
) -> tuple[Float[Tensor, " clients"], tuple[float, ...], float]:
    """Return the factor that scales each client's values to the bound, their norms, and the bound (default: median)."""
    squares = [values.square().flatten(1).sum(1) for values, _ in slots(learned, coverage)]
    lengths = torch.stack(squares).sum(0).sqrt()
    bound = float(clip_norm if clip_norm is not None else lengths.quantile(0.5))
    return (bound / lengths.clamp(min=1e-300)).clamp(max=1.0), tuple(lengths.tolist()), bound
