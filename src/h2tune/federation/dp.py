"""Client-level differential privacy of the shared values: the Gaussian mechanism on equation (5)'s numerator; pure.

One round releases Σ_i clip(N_i) + N(0, (σ · clip)²), and what is computed from it. Two runs are neighbours if they
differ in one client's increments being zero instead ("zero-out": the same clients, ranks and roles take part), so that
the sum's L2 sensitivity is `clip`. Where one client's increments are replaced by any others it is twice that, and the
guarantee is that of σ / 2. docs/privacy.md says what is not protected.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.functional.aggregation import Sums

Source = Callable[[int], bytes]
"""Number of bytes → that many random bytes."""
DRAWS = 4
"""Draws behind one value of noise; see `gaussian`."""
MARGIN = 2.0**-20
"""Relative room below the clipping norm for float32's rounding, so that the bound holds for the rounded values."""
GRID = 5000
"""Steps into which the accountant divides the likely privacy losses; ε is rounded up on them, by less than 1e-6."""


@dataclass(frozen=True)
class Mechanism:
    """The numbers of the mechanism, the same for all parties of a federation.

    Args:
        by: Who adds the noise: the server, once; or every member its share.
        clip: Most L2 norm of one client's N.
        multiplier: σ: standard deviation of the sum's noise, in units of `clip`.
        delta: δ.
        shares: Members whose shares make up the whole noise. 1 for the server.
    """

    by: Literal["server", "member"]
    clip: float
    multiplier: float
    delta: float
    shares: int = 1

    @property
    def deviation(self) -> float:
        """Standard deviation of what one party adds to each entry: σ · clip / √shares."""
        return self.multiplier * self.clip / math.sqrt(self.shares)

    @property
    def quorum(self) -> int:
        """Members that a released sum needs: one of them may know, and subtract, its own share of the noise."""
        return self.shares + 1 if self.shares > 1 else 1


def clip(learned: Tensor, bound: float) -> Tensor:
    """Return N scaled down to an L2 norm (over all its entries) of at most `bound`; as it is if it is below.

    What is so large that its norm is not finite counts as nothing: it must not leave the bound either.
    """
    norm = float(learned.double().norm())
    if not math.isfinite(norm):
        return torch.zeros_like(learned)
    room = bound * (1 - MARGIN)
    return learned if norm <= room else (learned.double() * (room / norm)).to(learned.dtype)


def gaussian(shape: Sequence[int], deviation: float, source: Source = secrets.token_bytes) -> Tensor:
    """Return Gaussian noise (float64) of some standard deviation.

    It comes from the operating system's entropy, never from a run's seed, which all parties know; and not from a
    generator with a state, which entries that are noise alone (uncovered ones) could give away. Each value is the sum
    of four draws by the inverse of the distribution function: floating-point Gaussians have holes in their low bits
    (Mironov, CCS 2012), and a sum of several is hard to take apart (Holohan and Braghin, arXiv 2107.10138). It is
    still no discrete mechanism: the guarantee is that of real numbers.
    """
    count = math.prod(shape)
    total = np.zeros(count)
    for _ in range(DRAWS):
        bits = np.frombuffer(source(8 * count), dtype=np.uint64) >> 12
        total += ndtri((bits + 0.5) * 2.0**-52)  # exact, and so never 0 or 1; one bit more would round to 1
    return torch.from_numpy(total * (deviation / math.sqrt(DRAWS))).reshape(tuple(shape))


def noised(values: Tensor, deviation: float, source: Source = secrets.token_bytes) -> Tensor:
    """Return values with noise, added in float64 and then rounded to the values' own type."""
    return (values.double() + gaussian(values.shape, deviation, source).to(values.device)).to(values.dtype)


def protect(sums: Sums, mechanism: Mechanism, members: Sequence[int]) -> list[int]:
    """Add the server's noise to sums, or hold back roles with too few shares of it; return which.

    An aggregation that a crash cut off before its commit is done again with fresh noise. Nothing is released twice by
    that: what is not committed reached no client, no event and no state.

    Args:
        sums: The sums of equation (5).
        mechanism: The noise.
        members: How many members' values are in the sums, by position of the role.
    """
    if mechanism.by == "server":
        sums.learned.copy_(noised(sums.learned, mechanism.deviation))
        return []
    held_back = [i for i, count in enumerate(members) if count < mechanism.quorum]
    for i in held_back:
        sums.hold_back(i)
    return held_back


@lru_cache
def epsilon(multiplier: float, rounds: int, delta: float) -> float:
    """Return ε at δ of some rounds with a Gaussian noise of σ = `multiplier`, from dp-accounting's privacy losses.

    Every round counts for every client, whether it was drawn or not: who takes part is drawn as a fixed number, and
    openly, so there is no amplification by sampling.

    Raises:
        H2TuneError: dp-accounting is not installed.
    """
    accounting = _accounting()
    spread = math.sqrt(rounds) / multiplier  # the privacy loss is N(spread² / 2, spread²)
    accountant = accounting.pld.PLDAccountant(
        value_discretization_interval=(spread**2 / 2 + 10 * spread) / GRID
    )
    accountant.compose(accounting.GaussianDpEvent(multiplier), rounds)
    return float(accountant.get_epsilon(delta))


def multiplier_for(target: float, rounds: int, delta: float) -> float:
    """Return the least σ (rounded up to three digits) whose ε at δ after some rounds is at most `target`."""
    tail = math.sqrt(2 * math.log(1 / delta))
    high = math.sqrt(rounds) / (
        math.sqrt(tail**2 + 2 * target) - tail
    )  # enough by zCDP (arXiv 1605.02065, 1.3)
    low = high / 2
    while epsilon(low, rounds, delta) <= target:
        low, high = low / 2, low
    while high > low * 1.0005:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if epsilon(middle, rounds, delta) > target else (low, middle)
    digits = 2 - math.floor(math.log10(high))
    return float(math.ceil(high * 10**digits) / 10**digits)


def check_budget(mechanism: Mechanism, rounds: int, target: float | None) -> None:
    """Refuse rounds whose ε exceeds the target, before any of them.

    Raises:
        H2TuneError: ε after all rounds is above the target (the remedy names the σ that will do), or it cannot be
            computed, since dp-accounting is not installed.
    """
    planned = epsilon(mechanism.multiplier, rounds, mechanism.delta)
    if target is not None and planned > target:
        enough = multiplier_for(target, rounds, mechanism.delta)
        raise H2TuneError(
            f"{rounds} rounds at multiplier {mechanism.multiplier:g} have ε = {planned:.4g} at δ = "
            f"{mechanism.delta:g}, above target_epsilon {target:g}",
            where="privacy",
            remedy=f"Set privacy.multiplier = {enough:g} or more, or run fewer rounds",
        )


def spent(mechanism: Mechanism, rounds: int) -> dict[str, Any]:
    """Return what an event says after some rounds: ε, δ, and what the numbers are of.

    With noise from the members, `epsilon_to_server` is against who sees each member's own message (the coordinator):
    a single share is weaker than the sum.
    """
    told = {
        "noise": mechanism.by,
        "clip": mechanism.clip,
        "multiplier": mechanism.multiplier,
        "delta": mechanism.delta,
        "epsilon": epsilon(mechanism.multiplier, rounds, mechanism.delta),
    }
    if mechanism.by == "member":
        share = mechanism.multiplier / math.sqrt(mechanism.shares)
        told |= {"shares": mechanism.shares, "epsilon_to_server": epsilon(share, rounds, mechanism.delta)}
    return told


def _accounting() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError:
        raise H2TuneError(
            "dp-accounting is not installed, so ε cannot be computed",
            where="privacy",
            remedy="pip install 'h2tune[privacy]'",
        ) from None
    return dp_accounting
