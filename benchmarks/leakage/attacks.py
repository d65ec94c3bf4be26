"""The attacks, on tensors alone: membership and label by cosine, tokens by the span of an update's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def flat(tensors: dict[str, Tensor]) -> Tensor:
    """Return all tensors as one vector, by name."""
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def cosines(change: dict[str, Tensor], gradients: Tensor) -> Tensor:
    """Return the cosine of −change with every candidate's gradient (candidates, values).

    The passive attack of Li, Li and Ribeiro (ICLR 2023): members' gradients point where the update went.
    """
    return normalize(gradients, dim=1) @ normalize(-flat(change), dim=0)


def auc(inside: Tensor, outside: Tensor) -> float:
    """Return how often a member scores higher than a non-member; ties count half."""
    above = (inside[:, None] > outside).float() + 0.5 * (inside[:, None] == outside).float()
    return float(above.mean())


def token_ranks(rows: Sequence[Tensor], inputs: Sequence[Tensor], true: int, dimension: int) -> int:
    """Return how many tokens fit better than the true one at a position; 0 means that it is recovered.

    The span check of DAGER (Petrov et al., NeurIPS 2024): the gradient of a linear layer has its rows in the span of
    its inputs, so a token whose input lies in that span was there.

    Args:
        rows: Changes (r, width) of some layers with one input: ΔA with width d_in, or ΔT with width r.
        inputs: For each, what every token of the vocabulary would put in (vocabulary, width), of norm 1.
        true: The true token.
        dimension: Assumed dimension of the span: the number of tokens, as far as the rows have it.
    """
    missing = torch.zeros(len(inputs[0]), dtype=torch.float64)
    for change, candidates in zip(rows, inputs, strict=True):
        _, _, right = torch.linalg.svd(change.double(), full_matrices=False)
        span = right[: min(dimension, len(change), change.shape[1] - 1)]
        missing += 1 - (candidates @ span.float().T).square().sum(1)
    return int((missing < missing[true]).sum())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over seeds and half of its 95 % interval, by Student's t."""
    from scipy.stats import t

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
