"""Client-level differential privacy of the shared values: the Gaussian mechanism on equation (5)'s numerator; pure.

One round releases Σ_i clip(N_i) + N(0, (σ · clip)²), and values computed from it. Two runs are neighbours if they are
equal except that one client's increments are zero ("zero-out": the same clients, ranks and roles take part), so the L2
sensitivity of the sum is `clip`. If neighbours replace one client's increments by arbitrary ones, the sensitivity is
twice that, and the guarantee is that of σ / 2. docs/privacy.md lists what is not protected.
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
"""Draws per value of noise; see `gaussian`."""
MARGIN = 2.0**-20
"""Relative margin below the clipping norm, so that the bound holds after rounding to float32."""
GRID = 5000
"""Number of discretisation steps of the privacy loss; rounding on them raises ε by less than 1e-6."""


@dataclass(frozen=True)
class Mechanism:
    """The parameters of the mechanism, the same for all parties of a federation.

    Args:
        by: Who adds the noise: the server, once; or every client ("member") its share.
        clip: Largest L2 norm of one client's N.
        multiplier: σ: standard deviation of the sum's noise, in units of `clip`.
        delta: δ.
        shares: Number of clients whose shares add up to the full noise; 1 for the server.
    """

    by: Literal["server", "member"]
    clip: float
    multiplier: float
    delta: float
    shares: int = 1

    @property
    def deviation(self) -> float:
        """Standard deviation of one party's noise on each entry: σ · clip / √shares."""
        return self.multiplier * self.clip / math.sqrt(self.shares)

    @property
    def quorum(self) -> int:
        """Number of clients that a released sum needs: one more than the shares, as a client can subtract its own."""
        return self.shares + 1 if self.shares > 1 else 1


def clip(learned: Tensor, bound: float) -> Tensor:
    """Return N scaled down to an L2 norm (over all its entries) of at most `bound`; unchanged if it is below.

    Returns zeros if the norm is not finite, so that the bound holds for any input.
    """
    norm = float(learned.double().norm())
    if not math.isfinite(norm):
        return torch.zeros_like(learned)
    room = bound * (1 - MARGIN)
    return learned if norm <= room else (learned.double() * (room / norm)).to(learned.dtype)


def gaussian(shape: Sequence[int], deviation: float, source: Source = secrets.token_bytes) -> Tensor:
    """Return Gaussian noise (float64) of a standard deviation.

    The source is the operating system's entropy: a run's seed is known to all parties, and a generator's state could
    be recovered from entries that are noise alone (uncovered ones). Each value is the sum of four draws by inverse
    transform sampling: a single floating-point Gaussian has gaps in its low bits (Mironov, CCS 2012), which a sum of
    several hides (Holohan and Braghin, arXiv 2107.10138). It is still not a discrete mechanism: the guarantee assumes
    real numbers.
    """
    count = math.prod(shape)
    total = np.zeros(count)
    for _ in range(DRAWS):
        bits = np.frombuffer(source(8 * count), dtype=np.uint64) >> 12
        # exact, so never 0 or 1; with one more bit it could round to 1
        total += ndtri((bits + 0.5) * 2.0**-52)
    return torch.from_numpy(total * (deviation / math.sqrt(DRAWS))).reshape(tuple(shape))


def noised(values: Tensor, deviation: float, source: Source = secrets.token_bytes) -> Tensor:
    """Return values plus noise, added in float64 and then rounded to the dtype of the values."""
    return (values.double() + gaussian(values.shape, deviation, source).to(values.device)).to(values.dtype)


def protect(sums: Sums, mechanism: Mechanism, contributors: Sequence[int]) -> list[int]:
    """Add the server's noise to sums, or hold back roles with too few shares of noise; return their positions.

    After a crash before its commit, an aggregation is repeated with new noise. This releases nothing twice, since
    uncommitted values reach no client, event or state.

    Args:
        sums: The sums of equation (5).
        mechanism: The noise.
        contributors: Number of clients whose values are in the sums, by position of the role.
    """
    if mechanism.by == "server":
        sums.learned.copy_(noised(sums.learned, mechanism.deviation))
        return []
    held_back = [i for i, count in enumerate(contributors) if count < mechanism.quorum]
    for i in held_back:
        sums.hold_back(i)
    return held_back


@lru_cache
def epsilon(multiplier: float, rounds: int, delta: float) -> float:
    """Return ε at δ of a number of rounds with Gaussian noise of σ = `multiplier`, by dp-accounting.

    Every round counts for every client, drawn or not: the draw has a fixed size and is public, so there is no
    amplification by sampling.

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
    """Return the least σ (rounded up to three digits) whose ε at δ after all rounds is at most `target`."""
    tail = math.sqrt(2 * math.log(1 / delta))
    # sufficient by zCDP (arXiv 1605.02065, 1.3)
    high = math.sqrt(rounds) / (math.sqrt(tail**2 + 2 * target) - tail)
    low = high / 2
    while epsilon(low, rounds, delta) <= target:
        low, high = low / 2, low
    while high > low * 1.0005:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if epsilon(middle, rounds, delta) > target else (low, middle)
    digits = 2 - math.floor(math.log10(high))
    return float(math.ceil(high * 10**digits) / 10**digits)


def check_budget(mechanism: Mechanism, rounds: int, target: float | None) -> None:
    """Validate before the first round that ε after all rounds is within the target.

    Raises:
        H2TuneError: ε after all rounds is above the target (the remedy names a sufficient σ), or dp-accounting is not
            installed.
    """
    planned = epsilon(mechanism.multiplier, rounds, mechanism.delta)
    if target is not None and planned > target:
        sufficient = multiplier_for(target, rounds, mechanism.delta)
        raise H2TuneError(
            f"{rounds} rounds at multiplier {mechanism.multiplier:g} have ε = {planned:.4g} at δ = "
            f"{mechanism.delta:g}, above target_epsilon {target:g}",
            where="privacy",
            remedy=f"Set privacy.multiplier = {sufficient:g} or more, or run fewer rounds",
        )


def spent(mechanism: Mechanism, rounds: int) -> dict[str, Any]:
    """Return the privacy facts of an event after some rounds: ε, δ, and the mechanism's parameters.

    With noise from the clients, `epsilon_to_server` holds against the coordinator, which sees individual messages: a
    single share of noise is weaker than the sum.
    """
    facts = {
        "noise": mechanism.by,
        "clip": mechanism.clip,
        "multiplier": mechanism.multiplier,
        "delta": mechanism.delta,
        "epsilon": epsilon(mechanism.multiplier, rounds, mechanism.delta),
    }
    if mechanism.by == "member":
        share = mechanism.multiplier / math.sqrt(mechanism.shares)
        facts |= {"shares": mechanism.shares, "epsilon_to_server": epsilon(share, rounds, mechanism.delta)}
    return facts


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
