"""Numbers that can be summed under masks: fixed-point integers modulo 2⁶⁴; pure.

A member's values v become q = round(v / step), an integer of at most `most` in magnitude; a negative one is its two's
complement. The sum of all members' integers lies within ±2⁶² and cannot wrap. A sum that was not unmasked properly is
uniform over all 2⁶⁴ values, so half of its entries lie beyond that, which `dequantise` refuses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h2tune.errors import H2TuneError

Words = NDArray[np.uint64]
"""Integers modulo 2⁶⁴; NumPy's sums and differences of them wrap, as they must."""
RANGE = 128.0
"""Most magnitude of a value. Coverage is at most a model's depth; increments are far below."""
BITS = 62
"""The sum stays within ±2^BITS: one bit is the sign, and one tells a failed unmasking.

32-bit words would halve the bytes, but (5) divides by the coverage, which a relation makes as small as 1e-12: a step of
1e-7 there would be noise as large as what was learned.
"""


def most(members: int) -> int:
    """Return the most magnitude of one member's integer, so that the sum over all members stays within ±2^BITS."""
    return (2**BITS - 1) // members


def step(members: int) -> float:
    """Return the quantisation step: 8.3e-17 for three members. A sum over n of them is off by n · step / 2 at most."""
    return RANGE / most(members)


def quantise(values: NDArray[np.float64], members: int) -> Words:
    """Return values as integers modulo 2⁶⁴.

    Args:
        values: The values.
        members: Number of members in the federation: the most whose values are summed.

    Raises:
        H2TuneError: A value is not finite, or beyond the public range. (Cutting it off would bias the sum unseen.)
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= RANGE:  # also where it is not a number
        raise H2TuneError(
            f"a value of magnitude {largest:g} is beyond {RANGE:g}, the range of secure aggregation",
            remedy="Lower experimental.shared_learning_rate: training has diverged",
        )
    # above 2⁵³ the quotient is not exact, so that the largest could round to beyond the bound
    integers = np.rint(values / step(members)).astype(np.int64)
    return np.clip(integers, -most(members), most(members)).view(np.uint64)


def dequantise(total: Words, members: int, count: int) -> NDArray[np.float64]:
    """Return the sum of the values of `count` out of all members.

    Raises:
        H2TuneError: It is no sum of so many: a share was wrong, or a member sent anything.
    """
    integers = total.view(np.int64)
    bound = count * most(members)
    if bool(((integers > bound) | (integers < -bound)).any()):
        raise H2TuneError(
            "what was unmasked is no sum of the members' values: a member sent other shares or values"
        )
    return integers.astype(np.float64) * step(members)


def add(total: Words, mask: Words, sign: int) -> None:
    """Add a mask to a vector in place, or (with sign −1) take it off."""
    operation = np.add if sign > 0 else np.subtract
    operation(total, mask, out=total)


def pair_sign(one: str, other: str) -> int:
    """Return the sign with which `one` adds the mask that it has in common with `other`; the other's is opposite."""
    return 1 if one < other else -1
