"""Tokenised examples and padded batches, laid out so that only the needed logits are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
from h2tune.functional.losses import IGNORED
from h2tune.tasks.prompts import shorten
from h2tune.tasks.task import Example, Task


@dataclass(frozen=True)
class Encoded:
    """One tokenised example.

    Args:
        prompt: Tokens of the prompt (decoder) or the text (encoder), special tokens included.
        answer: Tokens to predict (decoder); empty for an encoder.
        label: Index of the label, or None.
        target: A teacher's probabilities of the labels, for a public text without a label; else None.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    label: int | None
    target: tuple[float, ...] | None = None


def encode_causal(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """Encode prompts and answers for a decoder; prompts are shortened to the task's length, the template kept.

    A free answer ends with the tokenizer's end-of-sequence token; for labels see `label_answers`.
    """
    encoded = []
    words = label_answers(task, tokenizer) if task.kind == "label" else []
    for example in examples:
        prompt = shorten(example.prompt, task.template, tokenizer, task.max_length)
        answer = answer_tokens(example.answer, tokenizer) if example.label is None else words[example.label]
        if task.kind == "generate" and tokenizer.eos_token_id is not None:
            answer = (*answer, tokenizer.eos_token_id)
        encoded.append(Encoded(tuple(tokenizer(prompt)["input_ids"]), answer, example.label))
    return encoded


def encode_texts(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """Encode bare texts for an encoder with a classification head."""
    return [
        Encoded(
            tuple(tokenizer(e.text, truncation=True, max_length=task.max_length)["input_ids"]), (), e.label
        )
        for e in examples
    ]


def answer_tokens(answer: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens of an answer that continues a prompt, without special tokens."""
    return tuple(tokenizer(answer, add_special_tokens=False)["input_ids"])


def label_answers(task: Task, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    """Return the tokens of each label's words, after which a decoder's answer is trained and scored.

    Where one label's tokens begin another's, as those of "1" begin those of "10", all end with the end-of-sequence
    token: without an end the shorter label has always the greater likelihood.

    Raises:
        H2TuneError: Two labels have the same tokens, or there is no end-of-sequence token where one is needed.
    """
    answers = [answer_tokens(words, tokenizer) for words in task.verbalisers]
    pairs = [
        (a, b) for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j and b[: len(a)] == a
    ]
    if not pairs:
        return answers
    for a, b in pairs:
        one, other = (task.verbalisers[answers.index(answer)] for answer in (a, b))
        if a == b:
            one, other = [w for w, answer in zip(task.verbalisers, answers, strict=True) if answer == a][:2]
            raise H2TuneError(
                f"the labels {one.strip()!r} and {other.strip()!r} have the same tokens",
                where=f"task '{task.name}'",
                remedy="Name the labels by words that this model's tokenizer tells apart",
            )
        if tokenizer.eos_token_id is None:
            raise H2TuneError(
                f"the tokens of label {one.strip()!r} begin those of {other.strip()!r}, and the tokenizer has no "
                "end-of-sequence token to tell them apart",
                where=f"task '{task.name}'",
                remedy="Name the labels by words of which none begins another",
            )
    return [(*answer, int(tokenizer.eos_token_id)) for answer in answers]


def label_tokens(task: Task, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the first token of each label's words, on which a decoder is distilled on public texts."""
    return [answer_tokens(words, tokenizer)[0] for words in task.verbalisers]


def by_length(encoded: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Return the rows of each batch, shortest prompts first, so that little is padded."""
    order = sorted(range(len(encoded)), key=lambda row: (len(encoded[row].prompt), row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def causal_batch(items: Sequence[Encoded], pad: int, *, positions: bool) -> dict[str, Tensor]:
    """Return a batch padded on the left, so that all answers end in the last column.

    Args:
        items: Examples with at least one answer token each.
        pad: Padding token.
        positions: Whether the model accepts `position_ids` (left padding must not shift learned positions).

    Returns:
        `input_ids`, `attention_mask` (batch, length), `labels` (batch, kept): the targets of the last `kept` logits;
        `position_ids` if asked for. The last answer token is a target only.
    """
    rows = [item.prompt + item.answer[:-1] for item in items]
    length, kept = max(map(len, rows)), max(1, *(len(item.answer) for item in items))
    batch = {
        "input_ids": torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        "labels": torch.tensor([[IGNORED] * (kept - len(i.answer)) + list(i.answer) for i in items]),
    }
    batch |= _targets(items)
    if positions:
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return batch


def text_batch(items: Sequence[Encoded], pad: int) -> dict[str, Tensor]:
    """Return a batch padded on the right; `labels` (batch, 1) are the label indices."""
    length = max(len(item.prompt) for item in items)
    return {
        "input_ids": torch.tensor([list(i.prompt) + [pad] * (length - len(i.prompt)) for i in items]),
        "attention_mask": torch.tensor([[1] * len(i.prompt) + [0] * (length - len(i.prompt)) for i in items]),
        "labels": torch.tensor([[IGNORED if i.label is None else i.label] for i in items]),
    } | _targets(items)


def _targets(items: Sequence[Encoded]) -> dict[str, Tensor]:
    """Return `targets` (batch, labels), a teacher's probabilities, zero in rows without; {} if no row has any."""
    classes = max((len(item.target) for item in items if item.target is not None), default=0)
    if not classes:
        return {}
    return {"targets": torch.tensor([item.target or (0.0,) * classes for item in items])}


def collator(
    model: Any, tokenizer: PreTrainedTokenizerBase, *, causal: bool
) -> Callable[..., dict[str, Tensor]]:
    """Return the collator that fits a model: `causal_batch` or `text_batch`."""
    pad = pad_token(tokenizer)
    if not causal:
        return lambda items: text_batch(items, pad)
    positions = "position_ids" in forward_arguments(model)
    return lambda items: causal_batch(items, pad, positions=positions)


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding token, or the end-of-sequence token if there is none; it is always masked."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def forward_arguments(model: Any) -> set[str]:
    """Return the argument names of the base model's forward."""
    import inspect

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(base.forward).parameters)


def kept_logits(model: Any, batch: dict[str, Tensor], *, causal: bool) -> Tensor:
    """Run a batch and return the logits that are scored: (batch, kept, classes).

    Decoders that support `logits_to_keep` compute the head for those positions only.
    """
    inputs: dict[str, Any] = {
        name: tensor for name, tensor in batch.items() if name not in ("labels", "targets")
    }
    if not causal:
        logits: Tensor = model(**inputs).logits
        return logits.unsqueeze(1)
    kept = batch["labels"].shape[1]
    base = model.module if hasattr(model, "module") else model
    if "logits_to_keep" in forward_arguments(base):
        inputs["logits_to_keep"] = kept
    logits = model(**inputs, use_cache=False).logits
    return logits[:, -kept:]
