"""Tokenised examples and padded batches, laid out so that only the needed logits are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from h2tune.functional.losses import IGNORED
from h2tune.tasks.prompts import shorten
from h2tune.tasks.task import Example, Task
from h2tune.training.chat_tokens import conversation
from h2tune.training.prompt_tokens import Tokens, continued, fitted, room, with_ends


@dataclass(frozen=True)
class Encoded:
    """One tokenised example.

    Args:
        prompt: Tokens of the prompt (decoder) or the text (encoder), special tokens included.
        answer: Tokens to predict (decoder); empty for an encoder.
        label: Index of the label, or None.
        target: A teacher's probabilities of the labels, for a public text without a label; else None.
        choices: Tokens of every label after this prompt (decoder); () for free answers and encoders.
        kept: Share of the text that is left after cutting, from 0 to 1.
        own: Which tokens of `answer` are the assistant's, in a conversation of several turns; () for all.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    label: int | None
    target: tuple[float, ...] | None = None
    choices: tuple[tuple[int, ...], ...] = ()
    kept: float = 1.0
    own: tuple[bool, ...] = ()

    @property
    def predicted(self) -> int:
        """The number of tokens to predict."""
        return sum(self.own) if self.own else len(self.answer)

    @property
    def targets(self) -> tuple[int, ...]:
        """The tokens to predict, `IGNORED` where they are not the assistant's."""
        if not self.own:
            return self.answer
        return tuple(t if mine else IGNORED for t, mine in zip(self.answer, self.own, strict=True))


def encode_causal(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """Encode prompts and answers for a decoder; prompts are shortened to the task's length, the template kept.

    A free answer ends with the tokenizer's end-of-sequence token; for labels see `prompt_tokens.with_ends`.

    Raises:
        H2TuneError: Labels that the tokenizer does not tell apart, or no position is left for a prompt.
    """
    limit, known = room(task, tokenizer), dict[tuple[Tokens, ...], tuple[Tokens, ...]]()
    return [_encode(task, example, tokenizer, limit, known) for example in examples]


def _encode(
    task: Task,
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    known: dict[tuple[Tokens, ...], tuple[Tokens, ...]],
) -> Encoded:
    """Encode one example; `known` holds the labels' tokens of those before it, mostly the same for all."""
    if example.messages:
        before, answer, own, kept = conversation(task, example, tokenizer, limit)
        if tokenizer.eos_token_id is not None and answer[-1:] != (tokenizer.eos_token_id,):
            answer, own = (*answer, tokenizer.eos_token_id), (*own, True)
        if task.positions is not None:
            left = task.positions - len(before)
            answer, own = answer[:left], own[:left]
        return Encoded(before, answer, None, kept=kept, own=own)
    prompt, kept = fitted(example.prompt, example.fields, tokenizer, limit)
    if example.label is not None:
        found = continued(prompt, task.verbalisers, tokenizer)
        if found.answers not in known:
            known[found.answers] = with_ends(found.answers, task, tokenizer)
        choices = known[found.answers]
        return Encoded(found.prompt, choices[example.label], example.label, choices=choices, kept=kept)
    found = continued(prompt, [example.answer], tokenizer)
    (answer,) = found.answers
    if task.kind == "generate" and tokenizer.eos_token_id is not None:
        answer = (*answer, tokenizer.eos_token_id)
    if task.positions is not None:
        answer = answer[: task.positions - len(found.prompt)]
    return Encoded(found.prompt, answer, None, kept=kept)


def encode_texts(
    task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """Encode bare texts for an encoder with a classification head.

    A text of several fields is shortened as a prompt is; another is cut at its end, as encoders' texts mostly are.
    """
    return [_encode_text(task, example, tokenizer) for example in examples]


def _encode_text(task: Task, example: Example, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    def tokens(text: str) -> Tokens:
        return tuple(tokenizer(text, verbose=False)["input_ids"])

    text, limit = example.text, task.max_length
    whole = tokens(text)
    if len(whole) <= limit:
        return Encoded(whole, (), example.label)
    special = tokenizer.num_special_tokens_to_add()  # which say nothing of the text

    def cut(found: Tokens) -> Encoded:
        return Encoded(found, (), example.label, kept=(len(found) - special) / max(len(whole) - special, 1))

    if len(example.text_fields) > 1:
        short = shorten(text, example.text_fields, lambda part: len(tokens(part)), limit)
        found = tokens(short)
        if len(found) <= limit:
            return cut(found)
    return cut(tuple(tokenizer(text, truncation=True, max_length=limit)["input_ids"]))


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
    if any(item.target is not None and not item.choices for item in items):
        raise ValueError("a public text of a decoder has no tokens of its labels")
    rows = [item.prompt + item.answer[:-1] for item in items]
    length, kept = max(map(len, rows)), max(1, *(len(item.answer) for item in items))
    batch = {
        "input_ids": torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        "labels": torch.tensor([[IGNORED] * (kept - len(i.answer)) + list(i.targets) for i in items]),
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
    """Return `targets` (batch, labels), a teacher's probabilities, zero in rows without; {} if no row has any.

    With them, for a decoder, `firsts` (batch, labels): the first token of each label, on which it is taught.
    """
    classes = max((len(item.target) for item in items if item.target is not None), default=0)
    if not classes:
        return {}
    found = {"targets": torch.tensor([item.target or (0.0,) * classes for item in items])}
    if any(item.choices for item in items):
        firsts = [[choice[0] for choice in item.choices] or [0] * classes for item in items]
        found["firsts"] = torch.tensor(firsts)
    return found


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
        name: tensor for name, tensor in batch.items() if name not in ("labels", "targets", "firsts")
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
