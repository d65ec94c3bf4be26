"""What is summed under masks: a client's N and C of equation (4), dense over all roles; pure.

Masks and relations differ by client, so that only N and C can be added: the server needs Σ N and Σ C alone, (5).
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
"""Its name before masking. The gate does not accept this name, so that an unmasked update is refused."""


def pack(
    learned: Float[Tensor, "D some R R"],
    coverage: Float[Tensor, "D some R R"],
    where: Sequence[int],
    roles: int,
    clients: int,
) -> Int[Tensor, "2 D roles R R"]:
    """Return N and C as integers modulo 2⁶⁴, in two's complement; roles that a client lacks are zero.

    Args:
        learned: N.
        coverage: C.
        where: Indices of the client's roles among all roles.
        roles: Number of all roles.
        clients: Number of clients in the federation.

    Raises:
        H2TuneError: A value is not finite, or beyond the public range.
    """
    slots, _, size, _ = learned.shape
    whole = torch.zeros(2, slots, roles, size, size, dtype=torch.float64)
    whole[0][:, where], whole[1][:, where] = learned.double(), coverage.double()
    return tensor_of(quantise(whole.numpy(), clients))


def unpack(
    total: Int[Tensor, "2 D roles R R"], clients: int, count: int
) -> tuple[Float[Tensor, "D roles R R"], Float[Tensor, "D roles R R"]]:
    """Return Σ N and Σ C of `count` out of all clients.

    Raises:
        H2TuneError: The integers exceed the sum of so many.
    """
    learned, coverage = torch.from_numpy(dequantise(words_of(total), clients, count)).float()
    return learned, coverage.clamp(min=0)  # rounding may leave it one step below zero


def words_of(tensor: Tensor) -> Words:
    """Return a tensor of int64 as integers modulo 2⁶⁴."""
    words: Words = tensor.contiguous().numpy().view(np.uint64)
    return words


def tensor_of(words: Words) -> Tensor:
    """Return integers modulo 2⁶⁴ as a tensor of int64, the widest integer type of tensors."""
    return torch.from_numpy(words.view(np.int64))
