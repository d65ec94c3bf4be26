"""Shamir's secret sharing (CACM 1979) of 32-byte secrets: PyCryptodome's, over GF(2¹²⁸), for each 16-byte half."""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from h2tune.errors import H2TuneError

HALF = 16
SIZE = 2 * HALF
"""Bytes of a secret, and of each share."""


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Return `count` shares of a secret: any `threshold` restore it, and fewer reveal nothing about it.

    The n-th share (from 0) has the index n + 1.
    """
    halves = [Shamir.split(threshold, count, secret[i : i + HALF], False) for i in (0, HALF)]
    return [low[1] + high[1] for low, high in zip(*halves, strict=True)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Restore a secret from shares.

    Args:
        shares: Share by index (from 1).
        threshold: Number of shares that restore the secret.

    Raises:
        H2TuneError: There are fewer than `threshold`.
    """
    if len(shares) < threshold:
        raise H2TuneError(f"there are {len(shares)} shares, {threshold} are needed")
    # with more shares than the threshold the library's result is wrong
    used = sorted(shares.items())[:threshold]
    return b"".join(
        Shamir.combine([(index, share[i : i + HALF]) for index, share in used], False) for i in (0, HALF)
    )
