"""A client's part of the exchange: its own scores of the public texts, and the lesson it makes of the consensus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.teaching.knowledge import Taught
from h2tune.federation.teaching.lesson import Lesson
from h2tune.federation.teaching.stacking import OwnScores
from h2tune.functional.teacher import SLOPE, STEEP, intercepts, teacher
from h2tune.seeds import derive
from h2tune.training.encode import Encoded
from h2tune.training.linear_head import extrapolate, head_scores, standardise
from h2tune.training.prompt_tokens import label_answers
from h2tune.training.readings import read_rows, token_scores

ZERO_SHOT = 0.5
"""Scale of a decoder's zero-shot scores beside its states, in units of all states together."""


def unable(client: LocalClient, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return why a client cannot take part in teaching; "" if it can."""
    if client.task.kind != "label":
        return "its answers are free text"
    labels = [example.label for example in client.splits.train]
    if len(set(labels)) == 1:
        return "its training examples have one label"
    if client.causal:
        firsts = {answer[0] for answer in label_answers(client.task, tokenizer)}
        if len(firsts) < len(client.task.labels):
            return "two of its labels begin with the same token"
    return ""


def own_words(client: LocalClient) -> str:
    """Return why a client speaks and takes no teacher; "" if it takes one.

    A decoder that answers in words starts from its zero-shot answers, and learns more from its labels than a linear
    head on its frozen states, which is what the teacher knows of it. With a teacher it lost: see
    docs/experiments/teachers.md.
    """
    if client.causal and client.splits.train:
        return "it answers in words, and learns more from its own labels"
    return ""


def label_order(labels: Sequence[str]) -> Tensor:
    """Return the positions of labels in order of their names, in which all clients write their scores."""
    return torch.tensor(sorted(range(len(labels)), key=lambda i: labels[i]))


def known_of(
    client: LocalClient,
    reader: ModelReader,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    z: Tensor | None,
) -> OwnScores:
    """Return what a client knows, from a logistic regression on its frozen features.

    A decoder's zero-shot answers are features too, and all that a decoder without labels knows.

    Args:
        client: The client; `unable` has nothing against it.
        reader: Reads the public texts.
        base: The client's base model.
        tokenizer: Its tokenizer.
        z: Common coordinates of the public texts, if there are any.
    """
    public, own, answers = _features(client, reader, base, tokenizer)
    order = label_order(client.task.labels)
    rows = client.encoded("train", tokenizer)
    labels = order.argsort()[torch.tensor([row.label for row in rows], dtype=torch.long)]
    if len(labels):
        scores = head_scores(own, labels, len(order), public)
    else:
        scores = torch.zeros(len(public), len(order)) if answers is None else answers[:, order]
    coordinates = torch.empty(0)
    if z is not None:
        coordinates = extrapolate(public, z, own) if len(labels) else z[:0]
    return OwnScores(public, own, labels, scores, coordinates, derive(client.seed, "folds", client.name))


def _features(
    client: LocalClient, reader: ModelReader, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return features of the public texts and of a client's own, and a decoder's zero-shot scores of the former."""
    finals = reader.finals(client)
    rows, size = client.encoded("train", tokenizer), client.evaluate_batch_size
    own = finals[:0]
    if rows:
        own, _, _ = read_rows(base, tokenizer, rows, causal=client.causal, modules={}, batch_size=size)
    public, mine = standardise(finals, finals), standardise(own, finals)
    if not client.causal:
        return public, mine, None
    answers, his = (
        token_scores(base, states, read, len(client.task.labels))
        for states, read in ((finals, reader.rows(client)), (own, rows))
    )
    scale = ZERO_SHOT * finals.shape[1] ** 0.5
    answers, his = (a - a.mean(1, keepdim=True) for a in (answers, his))
    public, mine = (
        torch.cat([states, scale * standardise(a, answers)], dim=1)
        for states, a in ((public, answers), (mine, his))
    )
    return public, mine, answers


def lesson_of(
    client: LocalClient,
    taught: Taught,
    labels: Tensor,
    texts: Sequence[Encoded],
) -> Lesson:
    """Return the client's lesson: equation (14), or none where its own labels speak against the teacher.

    Args:
        client: The client.
        taught: What it learned from the others.
        labels: Labels of its own texts (m,).
        texts: The public texts in the client's tokens.
    """
    if not taught.facts["taken"]:
        return Lesson((), taught.facts)
    slope = STEEP if client.training.outweighs_teacher(len(labels)) else SLOPE
    targets = teacher(taught.public, intercepts(taught.own, labels, slope), slope)
    targets = targets[:, label_order(client.task.labels).argsort()]  # in the task's own order
    rows = [replace(row, target=tuple(q)) for row, q in zip(texts, targets.tolist(), strict=True)]
    return Lesson(tuple(rows), taught.facts)
