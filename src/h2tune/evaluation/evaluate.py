"""Accuracy and loss of a model on a split of its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from transformers import PreTrainedTokenizerBase

from h2tune.adapter.folded import folded
from h2tune.evaluation.generate import evaluate_generated
from h2tune.evaluation.result import Score
from h2tune.tasks.task import Example, Task
from h2tune.training.encode import (
    Encoded,
    by_length,
    causal_batch,
    collator,
    encode_causal,
    encode_texts,
    forward_arguments,
    kept_logits,
    pad_token,
)


def evaluate(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    causal: bool,
    batch_size: int = 16,
    encoded: Sequence[Encoded] | None = None,
) -> Score:
    """Score a model: labels by log-likelihood of their verbalisers or by the head, free answers by the task's scorer.

    The loss is the negative log-probability of the correct label among the labels; for free answers it is per token.

    Args:
        model: The model.
        task: Its task.
        examples: Examples of the task.
        tokenizer: The model's tokenizer.
        causal: Whether the model is a decoder without a head.
        batch_size: Examples in a batch.
        encoded: The examples in tokens; tokenised here by default.
    """
    model.eval()
    with torch.inference_mode(), folded(model):
        if encoded is None:
            encoded = (encode_causal if causal else encode_texts)(task, examples, tokenizer)
        if task.kind == "generate":
            return evaluate_generated(model, task, examples, encoded, tokenizer, batch_size=batch_size)
        scores = label_scores(model, task, encoded, tokenizer, causal=causal, batch_size=batch_size)
    labels = torch.tensor([example.label for example in examples])
    likelihood = log_softmax(scores, dim=-1)
    return Score(
        accuracy=float((scores.argmax(-1) == labels).float().mean()),
        loss=float(-likelihood.gather(1, labels[:, None]).mean()),
        examples=len(examples),
    )


def label_scores(
    model: nn.Module,
    task: Task,
    encoded: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    *,
    causal: bool,
    batch_size: int,
) -> Tensor:
    """Return the score of every label for every example (examples, labels), in the order of the examples."""
    device = next(model.parameters()).device
    if causal and any(len(choice) > 1 for item in encoded for choice in item.choices):
        return _continuation_scores(model, encoded, len(task.labels), tokenizer, batch_size, device)
    collate = collator(model, tokenizer, causal=causal)
    scores = torch.empty(len(encoded), len(task.labels))
    for rows in by_length(encoded, batch_size):
        batch = {name: t.to(device) for name, t in collate([encoded[row] for row in rows]).items()}
        logits = kept_logits(model, batch, causal=causal)[:, -1].float()
        if causal:
            first = [[choice[0] for choice in encoded[row].choices] for row in rows]
            logits = log_softmax(logits, dim=-1).gather(1, torch.tensor(first, device=device))
        scores[rows] = logits.cpu()
    return scores


def _continuation_scores(
    model: nn.Module,
    encoded: Sequence[Encoded],
    labels: int,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Score verbalisers of several tokens: the log-likelihood of all their tokens after the prompt."""
    pad = pad_token(tokenizer)
    positions = "position_ids" in forward_arguments(model)
    scores = torch.empty(len(encoded), labels)
    for label in range(labels):
        continued = [Encoded(item.prompt, item.choices[label], label) for item in encoded]
        for rows in by_length(continued, batch_size):
            batch: dict[str, Any] = causal_batch([continued[row] for row in rows], pad, positions=positions)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logits = log_softmax(kept_logits(model, batch, causal=True).float(), dim=-1)
            scores[rows, label] = logits.gather(2, batch["labels"][:, :, None]).sum(dim=(1, 2)).cpu()
    return scores
