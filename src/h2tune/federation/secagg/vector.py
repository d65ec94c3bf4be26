"""What is summed under masks: a member's N and C of equation (4), dense over all roles; pure.

Masks and relations differ by member, so that only N and C can be added: the server needs Σ N and Σ C alone, (5).
Deviation: the release sends values, and the default here factors; sums under masks need N and C themselves, quantised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune.federation.secagg.masking import Words, dequantise, quantise

MASKED = "masked"
"""Name of the one tensor of an update under masks."""
PLAIN = "quantised"
"""Its name before masks are on it. The gate knows no such name, so that one which was not masked is refused."""


def pack(
    learned: Float[Tensor, "D some R R"],
    coverage: Float[Tensor, "D some R R"],
    where: Sequence[int],
    roles: int,
    members: int,
) -> Int[Tensor, "2 D roles R R"]:
    """Return N and C as integers modulo 2⁶⁴, in two's complement; roles that a member lacks are zero.

    Raises:
        H2TuneError: A value is not finite, or beyond the public range.
    """
    slots, _, size, _ = learned.shape
    whole = torch.zeros(2, slots, roles, size, size, dtype=torch.float64)
    whole[0][:, where], whole[1][:, where] = learned.double(), coverage.double()
    return tensor_of(quantise(whole.numpy(), members))


def unpack(
    total: Int[Tensor, "2 D roles R R"], members: int, count: int
) -> tuple[Float[Tensor, "D roles R R"], Float[Tensor, "D roles R R"]]:
    """Return Σ N and Σ C of `count` out of all members.

    Raises:
        H2TuneError: It is no such sum.
    """
    learned, coverage = torch.from_numpy(dequantise(words_of(total), members, count)).float()
    return learned, coverage.clamp(min=0)  # rounding may leave the last step below nothing


def words_of(tensor: Tensor) -> Words:
    """Return a tensor of int64 as integers modulo 2⁶⁴."""
    words: Words = tensor.contiguous().numpy().view(np.uint64)
    return words


def tensor_of(words: Words) -> Tensor:
    """Return integers modulo 2⁶⁴ as a tensor of int64, the widest type that tensors have."""
    return torch.from_numpy(words.view(np.int64))
