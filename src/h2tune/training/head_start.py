"""A classification head that starts at what a teacher says, or at the client's own labels, before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from h2tune.training.encode import Encoded
from h2tune.training.linear_head import linear_rule

LOWEST = 1e-6
"""Smallest probability of a teacher whose logarithm is taken."""
SURE = 0.9
"""Probability that a label gets where there is no teacher."""


def start_head(layer: nn.Linear, features: Tensor, rows: Sequence[Encoded]) -> None:
    """Set a classifier's last layer to the ridge regression of log-probabilities on its inputs.

    A fresh head distorts what the model knows until it is trained (Kumar et al., arXiv 2202.10054); this one gives the
    right answers from the start, as far as they are linear in the frozen model's states.

    Args:
        layer: The last layer, for the client's labels.
        features: Its inputs (n, d) on the texts, from `readings.head_inputs`.
        rows: The texts, with a teacher's probabilities (`target`) or a label.
    """
    answers = torch.stack([_probabilities(row, layer.out_features) for row in rows]).clamp(min=LOWEST).log()
    weight, bias = linear_rule(features, answers - answers.mean(1, keepdim=True))
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)


def _probabilities(row: Encoded, classes: int) -> Tensor:
    if row.target is not None or row.label is None:
        return torch.tensor(row.target)
    probabilities = torch.full((classes,), (1 - SURE) / (classes - 1))
    probabilities[row.label] = SURE
    return probabilities
