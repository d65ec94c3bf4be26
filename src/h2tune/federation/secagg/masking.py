"""Numbers that can be summed under masks: fixed-point integers modulo 2⁶⁴; pure.

A client's value v becomes q = round(v / step), an integer of magnitude at most `most`; negative integers are in two's
complement. The sum of all clients' integers stays within ±2⁶² and cannot wrap. A sum that was not unmasked properly is
uniform over all 2⁶⁴ values, so that half of its entries exceed that bound, which `dequantise` rejects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from h2tune.errors import H2TuneError

Words = NDArray[np.uint64]
"""Integers modulo 2⁶⁴; NumPy's sums and differences of them wrap, as they must."""
RANGE = 128.0
"""Largest magnitude of a value. Coverage is at most a model's depth; increments are far smaller."""
BITS = 62
"""The sum stays within ±2^BITS: one further bit is the sign, and one detects a failed unmasking.

32-bit words would halve the bytes, but (5) divides by the coverage, which a relation makes as small as 1e-12: a step of
1e-7 there would be noise as large as the increments.
"""


def most(clients: int) -> int:
    """Return the largest magnitude of one client's integer, so that the sum over all clients stays within ±2^BITS."""
    levels: int = (2**BITS - 1) // clients
    return levels


def step(clients: int) -> float:
    """Return the quantisation step: 8.3e-17 for three clients. A sum over n of them is off by n · step / 2 at most."""
    return RANGE / most(clients)


def quantise(values: NDArray[np.float64], clients: int) -> Words:
    """Return values as integers modulo 2⁶⁴.

    Args:
        values: The values, of any shape.
        clients: Number of clients in the federation: the most whose values are summed.

    Raises:
        H2TuneError: A value is not finite, or exceeds the public range. (Clipping it would bias the sum unnoticed.)
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= RANGE:  # also where it is not a number
        raise H2TuneError(
            f"a value of magnitude {largest:g} is beyond {RANGE:g}, the range of secure aggregation",
            remedy="Lower experimental.shared_learning_rate: training has diverged",
        )
    # above 2⁵³ the quotient is not exact, so that the largest could round beyond the bound
    integers = np.rint(values / step(clients)).astype(np.int64)
    return np.clip(integers, -most(clients), most(clients)).view(np.uint64)


def dequantise(total: Words, clients: int, count: int) -> NDArray[np.float64]:
    """Return the sum of the values of `count` out of all clients.

    Args:
        total: Sum of their integers modulo 2⁶⁴, of any shape.
        clients: Number of clients in the federation.
        count: Number of clients whose values are in the sum.

    Raises:
        H2TuneError: It exceeds the sum of so many: a share was wrong, or a client sent arbitrary integers.
    """
    integers = total.view(np.int64)
    bound = count * most(clients)
    if bool(((integers > bound) | (integers < -bound)).any()):
        raise H2TuneError(
            "unmasking gave no sum of the clients' values: a client sent wrong shares or values"
        )
    return integers.astype(np.float64) * step(clients)


def add(total: Words, mask: Words, sign: int) -> None:
    """Add a mask to a vector in place, or (with sign −1) subtract it."""
    operation = np.add if sign > 0 else np.subtract
    operation(total, mask, out=total)


def pair_sign(one: str, other: str) -> int:
    """Return the sign with which `one` adds the mask that it shares with `other`; the other's sign is opposite."""
    return 1 if one < other else -1
