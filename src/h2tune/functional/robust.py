"""Robust forms of equation (5), for federations in which some clients send anything; pure.

Deviation: the paper has equation (5) alone, which any one client can move anywhere.

Every rule works on a client's *value* V_i = N_i / C_i where it covers an entry (C_i ≥ `COVERED`): the mean of what its
blocks learned there, which equation (5) averages. A client that does not cover an entry has no say in it: no zero
stands in for it.

The coverage rule: an entry changes only if 2 f + 1 clients or more cover it, f being the number of hostile ones
assumed. Among them the honest are the majority, wherever the hostile claim to cover, and no f clients decide an entry
by being alone there. Elsewhere G stays as it is, to the bit.

One client, one voice. Example counts and coverages are claims: neither w_i nor C_i above one weighs here, or a client
that claims a million examples, or points all its blocks at one slot, would be the majority by itself.

Memory: `mean` (`aggregate.Sums`) streams, but a median or a distance needs all updates at once: N and C of every client
in float32, 2 · clients · D · roles · R² · 4 bytes, and working copies in float64 of one slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.functional.quorum import Rule, updates_needed

COVERED = 0.1
"""Coverage from which a client counts as covering an entry: a tenth of one of its blocks. Relations are soft: at the
start a block lends a neighbouring slot 3e-4 of itself, which is no observation of that slot, and must not count as
one of 2 f + 1. A client of L blocks whose relation is uniform over D slots covers them while L / D ≥ 0.1."""

LARGEST = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class Step:
    """What a robust rule says of a round.

    Args:
        rule: The rule.
        hostile: f.
        change: The step for G before η (D, roles, R, R), zero where nothing was decided.
        decided: Entries that 2 f + 1 clients cover; elsewhere G must stay as it is (D, roles, R, R).
        covered: Entries that anyone covers (D, roles, R, R).
        kept: Clients whose values count, in the order given: all but with `krum`.
        norms: ‖V_i‖ of the clients, with `clip`; else empty.
        bound: The norm that values were clipped to, with `clip`; else None.
    """

    rule: Rule
    hostile: int
    change: Float[Tensor, "D roles R R"]
    decided: Bool[Tensor, "D roles R R"]
    covered: Bool[Tensor, "D roles R R"]
    kept: tuple[bool, ...]
    norms: tuple[float, ...] = ()
    bound: float | None = None

    def apply(self, shared: Float[Tensor, "D roles R R"], rate: float = 1.0) -> Float[Tensor, "D roles R R"]:
        """Return G + η · change where that was decided, and G to the bit elsewhere."""
        return torch.where(self.decided, shared + rate * self.change, shared)

    def facts(self, roles: Sequence[str], clients: Sequence[str]) -> dict[str, Any]:
        """Return what an event says: the rule, how much of G was left as it was, who was kept or clipped.

        Args:
            roles: Names of the roles, in G's order.
            clients: Names of the clients, in the order given to `step`.
        """
        left = (self.covered & ~self.decided).sum((0, 2, 3)).tolist()
        covered = self.covered.sum((0, 2, 3)).tolist()
        found: dict[str, Any] = {
            "aggregation": self.rule,
            "hostile": self.hostile,
            "left": sum(left) / max(1, sum(covered)),
            "left_by_role": {r: a / max(1, b) for r, a, b in zip(roles, left, covered, strict=True)},
        }
        if self.rule == "krum":
            found["kept"] = [name for name, kept in zip(clients, self.kept, strict=True) if kept]
        if self.bound is not None:
            found |= {"clip_norm": self.bound, "norms": dict(zip(clients, self.norms, strict=True))}
        return found


def step(
    rule: Rule,
    learned: Float[Tensor, "clients D roles R R"],
    coverage: Float[Tensor, "clients D roles R R"],
    hostile: int,
    clip_norm: float | None = None,
) -> Step:
    """Return the step of a robust rule from all clients' N and C; a role that a client lacks is zero in both.

    * `median`: coordinate-wise median of the values (Yin et al. 2018, arXiv 1803.01498). Of an even number, the mean of
      the two in the middle.
    * `trimmed_mean`: the f largest and the f smallest values of an entry are dropped (the same paper with
      β = f / number of clients that cover it), the others averaged by min(C, 1).
    * `krum`: multi-Krum (Blanchard et al. 2017, "Machine learning with adversaries", NeurIPS): n − f clients are kept,
      those with the least sum of distances to their n − f − 2 nearest; then the mean of the kept. See `distances`.
    * `nnm`: nearest-neighbour mixing (Allouah et al. 2023, "Fixing by mixing", arXiv 2302.01772), then `trimmed_mean`:
      each client's value is first replaced by the mean of the n − f clients nearest to it, itself among them.
    * `clip`: values are scaled to a norm of at most `clip_norm`, or of the median of all norms (Sun et al. 2019,
      arXiv 1911.07963), then averaged by min(C, 1). Bounds what a hostile client does, does not undo it.

    With f = 0 and no coverage above one, `trimmed_mean`, `nnm` and `krum` are equation (5) with uniform weights
    wherever coverages are `COVERED` or more.

    Args:
        rule: Any but `mean`, which is `aggregate.Sums`.
        learned: N_i.
        coverage: C_i.
        hostile: f.
        clip_norm: The bound of `clip`.

    Raises:
        H2TuneError: There are too few clients for f.
    """
    count = learned.shape[0]
    if count < updates_needed(rule, hostile):
        raise H2TuneError(
            f"{rule} against {hostile} hostile clients needs {updates_needed(rule, hostile)} updates, not {count}",
            where="aggregation",
            remedy="Lower server.hostile, or mend the clients that failed",
        )
    kept, scales = torch.ones(count, dtype=torch.bool), torch.ones(count)
    norms: tuple[float, ...] = ()
    bound: float | None = None
    near = neighbours(distances(learned, coverage), hostile) if rule == "nnm" else None
    if rule == "krum":
        kept = nearest_together(distances(learned, coverage), hostile)
    elif rule == "clip":
        scales, norms, bound = clipping(learned, coverage, clip_norm)
    change = torch.zeros(learned.shape[1:])
    decided, covered = (torch.zeros(learned.shape[1:], dtype=torch.bool) for _ in range(2))
    for slot, (own, covers) in enumerate(_slots(learned, coverage)):
        voices = coverage[:, slot]
        values = own if near is None else mixed(own, covers, voices, near)
        covered[slot] = covers.any(0)
        enough = covers.sum(0) >= max(1, 2 * hostile + 1)
        if rule == "median":
            found = median(values, covers)
        else:
            trims = rule in ("trimmed_mean", "nnm")
            use = trimmed(values, covers, voices, hostile) if trims else covers & _along(kept, covers)
            enough &= use.any(0)
            found = mean(values * _along(scales.double(), values), use, voices)
        decided[slot] = enough
        change[slot] = torch.where(enough, found, 0.0).clamp(-LARGEST, LARGEST).float()
    return Step(rule, hostile, change, decided, covered, tuple(kept.tolist()), norms, bound)


def clipping(
    learned: Float[Tensor, "clients D roles R R"],
    coverage: Float[Tensor, "clients D roles R R"],
    clip_norm: float | None,
) -> tuple[Float[Tensor, " clients"], tuple[float, ...], float]:
    """Return what scales each client's values to the bound, their norms, and the bound (by default their median)."""
    squares = [values.square().flatten(1).sum(1) for values, _ in _slots(learned, coverage)]
    lengths = torch.stack(squares).sum(0).sqrt()
    bound = float(clip_norm if clip_norm is not None else lengths.quantile(0.5))
    return (bound / lengths.clamp(min=1e-300)).clamp(max=1.0), tuple(lengths.tolist()), bound


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
    """Return which values stay when the `count` largest and smallest of those that cover an entry are dropped.

    Of equal values those with less coverage come first, so that the order of clients means nothing.
    """
    by_coverage = coverage.argsort(dim=0, stable=True)
    ordered = torch.where(covers, values, torch.inf).gather(0, by_coverage)
    order = by_coverage.gather(0, ordered.argsort(dim=0, stable=True))
    rank = torch.empty_like(order).scatter_(
        0, order, _along(torch.arange(len(values)), order).expand_as(order)
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
    """Return the mean squared distance of each two clients over the entries that both cover; infinite without any.

    A mean, or clients that cover much would be far from all.
    """
    count = learned.shape[0]
    squares, common = torch.zeros(count, count).double(), torch.zeros(count, count).double()
    for values, covers in _slots(learned, coverage):
        for i in range(count):
            both = covers & covers[i]
            difference = torch.where(both, values - values[i], 0.0)
            squares[i] += difference.square().flatten(1).sum(1)
            common[i] += both.flatten(1).sum(1)
    return torch.where(common > 0, squares / common.clamp(min=1), torch.inf)


def neighbours(apart: Float[Tensor, "clients clients"], hostile: int) -> Bool[Tensor, "clients clients"]:
    """Return for each client the n − f nearest to it, itself among them, and more only where distances tie."""
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
    return summed / torch.where(total > 0, total, 1.0)


def nearest_together(apart: Float[Tensor, "clients clients"], hostile: int) -> Bool[Tensor, " clients"]:
    """Return the clients that multi-Krum keeps: n − f, and more only where scores tie.

    Who shares no entry with n − f − 2 others cannot be judged and is not kept.
    """
    count, apart = len(apart), apart.clone().fill_diagonal_(torch.inf)
    scores = apart.sort(1).values[:, : count - hostile - 2].sum(1)
    last = scores.sort().values[count - hostile - 1]
    return (scores <= last) & scores.isfinite()


def _slots(
    learned: Float[Tensor, "clients D roles R R"], coverage: Float[Tensor, "clients D roles R R"]
) -> Iterator[tuple[Float[Tensor, "clients roles R R"], Bool[Tensor, "clients roles R R"]]]:
    """Yield V and what is covered, slot by slot; V in float64, as a float32 update's squares would overflow."""
    for slot in range(learned.shape[1]):
        covers = coverage[:, slot] >= COVERED
        values = learned[:, slot].double() / torch.where(covers, coverage[:, slot], 1.0).double()
        # sums of blocks near float32's end overflow; what is not finite stands for the largest there is
        values = values.nan_to_num(nan=LARGEST, posinf=LARGEST, neginf=-LARGEST)
        yield torch.where(covers, values, 0.0), covers


def _along(clients: Tensor, like: Tensor) -> Tensor:
    """Return a tensor over clients, to be broadcast over entries."""
    return clients.view(-1, *[1] * (like.dim() - 1))
