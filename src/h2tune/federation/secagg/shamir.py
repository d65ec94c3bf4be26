"""Shamir's secret sharing (CACM 1979) of 32-byte secrets: PyCryptodome's, over GF(2¹²⁸), for both halves."""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from h2tune.errors import H2TuneError

HALF = 16
SIZE = 2 * HALF
"""Bytes of a secret, and of each share."""


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Return `count` shares of a secret, any `threshold` of which give it back, and fewer of which tell nothing.

    The n-th share (from 0) has the index n + 1.
    """
    halves = [Shamir.split(threshold, count, secret[i : i + HALF], False) for i in (0, HALF)]
    return [low[1] + high[1] for low, high in zip(*halves, strict=True)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret behind shares, given by index (from 1).

    Raises:
        H2TuneError: There are fewer than `threshold`.
    """
    if len(shares) < threshold:
        raise H2TuneError(f"{len(shares)} shares are there, {threshold} are needed")
    some = sorted(shares.items())[:threshold]  # the library wants no more than it needs
    return b"".join(
        Shamir.combine([(index, share[i : i + HALF]) for index, share in some], False) for i in (0, HALF)
    )
