"""A classification head that starts at what a teacher says, or at the client's own labels, before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.training.encode import Encoded
from h2tune.training.linear_head import linear_rule
from h2tune.training.readings import head_inputs

LOWEST = 1e-6
"""Smallest probability of a teacher whose logarithm is taken."""
SURE = 0.9
"""Probability that a label gets where there is no teacher."""


def start_head(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    layer: nn.Linear,
    *,
    batch_size: int,
) -> None:
    """Set a classifier's last layer to the ridge regression of log-probabilities on its inputs.

    A fresh head distorts what the model knows until it is trained (Kumar et al., arXiv 2202.10054); this one gives the
    right answers from the start, as far as they are linear in the frozen model's states.

    Args:
        model: A classifier.
        tokenizer: Its tokenizer.
        rows: Texts with a teacher's probabilities (`target`) or a label.
        layer: Its last layer, for the client's labels.
        batch_size: Texts of a batch.
    """
    features = head_inputs(model, tokenizer, rows, layer, batch_size=batch_size)
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
