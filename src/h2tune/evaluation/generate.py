"""Free answers: greedy generation, scored by the task's scorer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from h2tune.evaluation.result import Sample, Score
from h2tune.functional.losses import task_loss
from h2tune.scoring.scorers import LIKELIHOOD, measure_of, scorer_of
from h2tune.tasks.task import Example, Task
from h2tune.training.chat_tokens import fitted_chat, rendered
from h2tune.training.encode import Encoded, collator, kept_logits, pad_token
from h2tune.training.prompt_tokens import fitted, prompt_tokens, room

SAMPLES = 8
"""Answers that are kept of an evaluation."""


def evaluate_generated(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
) -> Score:
    """Generate greedily after the (one-shot) prompt and score the text; the loss is that of the correct answer."""
    device = next(model.parameters()).device
    right, loss, tokens = 0.0, 0.0, sum(item.predicted for item in encoded)
    collate = collator(model, tokenizer, causal=True)
    scorer = None if task.scorer == LIKELIHOOD else scorer_of(task.scorer)
    samples: list[Sample] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        if scorer is not None:
            texts = generated(model, task, batch, tokenizer)
            scores = [float(scorer(t, e.answer)) for t, e in zip(texts, batch, strict=True)]
            right += sum(scores)
            samples += map(_sample, batch[: SAMPLES - len(samples)], texts, scores)
        answers = {name: t.to(device) for name, t in collate(encoded[start : start + batch_size]).items()}
        per_token = task_loss(kept_logits(model, answers, causal=True), answers["labels"], 1)
        loss += float(per_token) / tokens
    accuracy = math.exp(-loss) if scorer is None else right / len(examples)
    return Score(accuracy, loss, len(examples), measure_of(task.scorer), tuple(samples))


def _sample(example: Example, answer: str, score: float) -> Sample:
    return Sample(example.prompt, example.answer, answer, round(score, 4))


def generated(
    model: nn.Module,
    task: Task,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """Return greedy answers to the (one-shot) prompts of examples, in one batch."""
    device, pad = next(model.parameters()).device, pad_token(tokenizer)
    settings = GenerationConfig(
        max_new_tokens=task.new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id
    )
    limit = room(task, tokenizer)
    prompts = [_asked(task, example, tokenizer, limit) for example in examples]
    rows = [list(prompt_tokens(prompt, tokenizer)) for prompt in prompts]
    length = max(map(len, rows))
    inputs = torch.tensor([[pad] * (length - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    with _without_defaults(model):
        output = model.generate(input_ids=inputs, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
    return [tokenizer.decode(answer, skip_special_tokens=True) for answer in output[:, length:]]


def _asked(task: Task, example: Example, tokenizer: PreTrainedTokenizerBase, limit: int) -> str:
    """Return what is asked of the model: the (one-shot) prompt, or the conversation, cut to `limit` tokens."""
    if example.messages:
        messages, _ = fitted_chat(example.messages, task, tokenizer, limit)
        return rendered(messages, task, tokenizer, asking=True)
    return task.one_shot + fitted(example.prompt, example.fields, tokenizer, limit)[0]


@contextlib.contextmanager
def _without_defaults(model: Any) -> Iterator[None]:
    """Leave out the model's own defaults of generation, such as a repetition penalty, while the block runs.

    Transformers fills in what a caller's settings leave open from them, and scores would depend on them in silence.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own
