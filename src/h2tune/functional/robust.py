"""Robust rules in place of equation (5), for federations in which some clients may send arbitrary values; pure.

Deviation: the paper has equation (5) alone, with which a single client can move G anywhere.

Every rule works on a client's *value* V_i = N_i / C_i where it covers an entry (C_i ≥ `COVERED`): the mean of what its
blocks learned there, which equation (5) averages. A client that does not cover an entry is ignored there; it does not
count as zero.

* `median`: coordinate-wise median of the values (Yin et al. 2018, arXiv 1803.01498). Of an even number, the mean of the
  two in the middle.
* `trimmed_mean`: the f largest and the f smallest values of an entry are dropped (the same paper with β = f / number of
  clients that cover it), the others averaged by min(C, 1).
* `krum`: multi-Krum (Blanchard et al. 2017, "Machine learning with adversaries", NeurIPS): n − f clients are kept,
  those with the least sum of distances to their n − f − 2 nearest; then the mean of the kept. See
  `estimators.distances`.
* `nnm`: nearest-neighbour mixing (Allouah et al. 2023, "Fixing by mixing", arXiv 2302.01772), then `trimmed_mean`: each
  client's value is first replaced by the mean of the n − f clients nearest to it, including itself.
* `clip`: values are scaled to a norm of at most `clip_norm`, or of the median of all norms (Sun et al. 2019,
  arXiv 1911.07963), then averaged by min(C, 1). Limits the effect of a hostile client, does not remove it.

With f = 0 and no coverage above one, `trimmed_mean`, `nnm` and `krum` are equation (5) with uniform weights wherever
coverages are `COVERED` or more.

The coverage rule: an entry changes only if 2 f + 1 clients or more cover it, f being the number of hostile clients
assumed. The honest are then the majority on it, whatever the hostile claim to cover, and f clients cannot decide an
entry by being the only ones there. Elsewhere G does not change, to the bit.

All clients have the same weight. Example counts and coverages are claims, so w_i is not used and C_i is cut at one:
otherwise a client could become the majority by claiming a million examples or mapping all its blocks to one slot.

Memory: `mean` (`aggregation.Sums`) streams, but a median or a distance needs all updates at once: N and C of every
client in float32, 2 · clients · D · roles · R² · 4 bytes, and working copies in float64 of one slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.functional import estimators
from h2tune.functional.quorum import Rule, updates_needed


@dataclass(frozen=True)
class Step:
    """The result of a robust rule in one round.

    Args:
        rule: The rule.
        hostile: f.
        change: The step for G before η (D, roles, R, R), zero where `decided` is false.
        decided: Entries that 2 f + 1 clients cover; elsewhere G must not change (D, roles, R, R).
        covered: Entries that at least one client covers (D, roles, R, R).
        kept: Whether each client's values are used, in the order given; always true except with `krum`.
        norms: ‖V_i‖ of each client, with `clip`; else empty.
        bound: The norm to which values were clipped, with `clip`; else None.
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
        """Return G + η · change where `decided`, and G, unchanged to the bit, elsewhere."""
        return torch.where(self.decided, shared + rate * self.change, shared)

    def facts(self, roles: Sequence[str], clients: Sequence[str]) -> dict[str, Any]:
        """Return the facts for the round's event: the rule, the share of G left unchanged, who was kept or clipped.

        Args:
            roles: Names of the roles, in G's order.
            clients: Names of the clients, in the order given to `step`.
        """
        left = (self.covered & ~self.decided).sum((0, 2, 3)).tolist()
        covered = self.covered.sum((0, 2, 3)).tolist()
        facts: dict[str, Any] = {
            "aggregation": self.rule,
            "hostile": self.hostile,
            "left": sum(left) / max(1, sum(covered)),
            "left_by_role": {r: a / max(1, b) for r, a, b in zip(roles, left, covered, strict=True)},
        }
        if self.rule == "krum":
            facts["kept"] = [name for name, kept in zip(clients, self.kept, strict=True) if kept]
        if self.bound is not None:
            facts |= {"clip_norm": self.bound, "norms": dict(zip(clients, self.norms, strict=True))}
        return facts


def step(
    rule: Rule,
    learned: Float[Tensor, "clients D roles R R"],
    coverage: Float[Tensor, "clients D roles R R"],
    hostile: int,
    clip_norm: float | None = None,
) -> Step:
    """Return the step of a robust rule from all clients' N and C; a role that a client lacks is zero in both.

    Args:
        rule: Any but `mean`, which is `aggregation.Sums`.
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
            remedy="Lower server.hostile, or fix the clients that failed",
        )
    weighting = _Weighting.of(rule, learned, coverage, hostile, clip_norm)
    change = torch.zeros(learned.shape[1:])
    decided, covered = (torch.zeros(learned.shape[1:], dtype=torch.bool) for _ in range(2))
    for slot, (values, covers) in enumerate(estimators.slots(learned, coverage)):
        estimate, used = weighting.estimate(values, covers, coverage[:, slot])
        covered[slot] = covers.any(0)
        decided[slot] = (covers.sum(0) >= max(1, 2 * hostile + 1)) & used
        limit = estimators.LARGEST
        change[slot] = torch.where(decided[slot], estimate, 0.0).clamp(-limit, limit).float()
    kept = tuple(weighting.kept.tolist())
    return Step(rule, hostile, change, decided, covered, kept, weighting.norms, weighting.bound)


@dataclass(frozen=True)
class _Weighting:
    """What a rule derives from whole updates before it goes through the slots.

    Args:
        rule: The rule.
        hostile: f.
        kept: Which clients are used.
        scales: Factor on each client's values.
        near: With `nnm`, the clients whose mean replaces each client's value.
        norms: With `clip`, ‖V_i‖ of each client.
        bound: With `clip`, the norm to which values are scaled.
    """

    rule: Rule
    hostile: int
    kept: Bool[Tensor, " clients"]
    scales: Float[Tensor, " clients"]
    near: Bool[Tensor, "clients clients"] | None = None
    norms: tuple[float, ...] = ()
    bound: float | None = None

    @classmethod
    def of(
        cls, rule: Rule, learned: Tensor, coverage: Tensor, hostile: int, clip_norm: float | None
    ) -> _Weighting:
        """Return the weighting of a rule from all clients' N and C."""
        kept, scales = torch.ones(len(learned), dtype=torch.bool), torch.ones(len(learned))
        if rule == "nnm":
            near = estimators.neighbours(estimators.distances(learned, coverage), hostile)
            return cls(rule, hostile, kept, scales, near)
        if rule == "krum":
            kept = estimators.nearest_together(estimators.distances(learned, coverage), hostile)
        if rule == "clip":
            scales, norms, bound = estimators.clipping(learned, coverage, clip_norm)
            return cls(rule, hostile, kept, scales, None, norms, bound)
        return cls(rule, hostile, kept, scales)

    def estimate(
        self,
        values: Float[Tensor, "clients roles R R"],
        covers: Bool[Tensor, "clients roles R R"],
        coverage: Float[Tensor, "clients roles R R"],
    ) -> tuple[Float[Tensor, "roles R R"], Bool[Tensor, "roles R R"]]:
        """Return the rule's value of every entry of a slot, and whether a client's value went into it."""
        if self.rule == "median":
            return estimators.median(values, covers), covers.any(0)
        if self.near is not None:
            values = estimators.mixed(values, covers, coverage, self.near)
        if self.rule in ("trimmed_mean", "nnm"):
            use = estimators.trimmed(values, covers, coverage, self.hostile)
        else:
            use = covers & estimators.along(self.kept, covers)
        scaled = values * estimators.along(self.scales.double(), values)
        return estimators.mean(scaled, use, coverage), use.any(0)
