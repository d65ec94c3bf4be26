"""A client's part of the exchange: its own scores of the public texts, and the lesson it makes of the consensus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.teaching.knowledge import KNOWLEDGE, Knowledge, OwnScores
from h2tune.federation.teaching.lesson import Lesson
from h2tune.functional.directions import calibration, intercepts, teacher
from h2tune.functional.quorum import Teaching
from h2tune.seeds import derive
from h2tune.training.encode import label_tokens
from h2tune.training.linear_head import extrapolate, head_scores, standardise
from h2tune.training.readings import encode_texts, read_rows, token_scores

ZERO_SHOT = 0.5
"""Scale of a decoder's zero-shot scores beside its states, in units of all states together."""
FOLDS = 5
"""Parts of a client's own labels in the comparison of the consensus with the client alone."""


@dataclass(frozen=True)
class Learner:
    """A client's frozen features of public texts and of its own, and its own scores.

    Args:
        client: The client.
        public: Features of the public texts (n, d), standardised.
        own: Features of its own training texts (m, d), on the same scale.
        scores: What it knows before the exchange; zero of a client without labels that is no decoder.
    """

    client: LocalClient
    public: Tensor
    own: Tensor
    scores: OwnScores


def unable(client: LocalClient, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return why a client cannot take part in teaching; "" if it can."""
    if client.task.kind != "label":
        return "its answers are free text"
    labels = [example.label for example in client.splits.train]
    if len(set(labels)) == 1:
        return "its training examples have one label"
    if client.causal and len(set(label_tokens(client.task, tokenizer))) < len(client.task.labels):
        return "two of its labels begin with the same token"
    return ""


def label_order(labels: Sequence[str]) -> Tensor:
    """Return the positions of labels in order of their names, in which all clients write their scores."""
    return torch.tensor(sorted(range(len(labels)), key=lambda i: labels[i]))


def learner_of(
    client: LocalClient,
    reader: ModelReader,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    z: Tensor | None,
) -> Learner:
    """Return a client's features and its own scores, from a logistic regression on its frozen features.

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
    known = torch.empty(0) if z is None or not len(labels) else extrapolate(public, z, own)
    return Learner(client, public, own, OwnScores(scores, known, labels))


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
    tokens = label_tokens(client.task, tokenizer)
    answers, his = (token_scores(base, states, tokens) for states in (finals, own))
    scale = ZERO_SHOT * finals.shape[1] ** 0.5
    answers, his = (a - a.mean(1, keepdim=True) for a in (answers, his))
    public, mine = (
        torch.cat([states, scale * standardise(a, answers)], dim=1)
        for states, a in ((public, answers), (mine, his))
    )
    return public, mine, answers


def lesson_of(
    learner: Learner,
    teaching: Teaching,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    z: Tensor,
    sent: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
) -> Lesson:
    """Return the client's lesson: equation (14), or none where its own labels speak against the consensus.

    Args:
        learner: The client with its features.
        teaching: The kind of knowledge.
        texts: The public texts.
        tokenizer: The client's tokenizer.
        z: Common coordinates of the public texts.
        sent: What the client sent.
        received: What it received.
    """
    knowledge, client, labels = KNOWLEDGE[teaching], learner.client, learner.scores.labels
    scores = knowledge.scores(z, learner.scores, sent, received)
    if not bool(scores.any()):
        return Lesson((), {"taken": False, "reason": "nobody knows its labels"})
    own = extrapolate(learner.public, scores, learner.own) if len(labels) else scores[:0]
    b = intercepts(own, labels)
    targets = teacher(scores, b)[:, label_order(client.task.labels).argsort()]  # in the task's own order
    facts = compare_with_own(learner, knowledge, z, received)
    rows: list[Any] = []
    if facts["taken"]:
        encoded = encode_texts(tokenizer, client.task, texts, causal=client.causal)
        rows = [replace(row, target=tuple(q)) for row, q in zip(encoded, targets.tolist(), strict=True)]
    return Lesson(tuple(rows), facts)


def compare_with_own(
    learner: Learner, knowledge: Knowledge, z: Tensor, received: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Compare the consensus with the client alone by cross-validated log-loss on the client's own labels.

    Both are scored on labels that they have not seen: the client's own part is fitted to the other folds. The consensus
    is declined where it is worse by more than one standard error of the difference.

    Returns:
        `taken`; and where there is something to compare `own_loss`, `peers_loss` and `standard_error` of their
        difference, in nats per example, and the shares of right answers, `own_right` and `peers_right`.
    """
    if not knowledge.may_decline or not any(bool(tensor.any()) for tensor in received.values()):
        return {"taken": True}
    labels, classes = learner.scores.labels, len(learner.client.task.labels)
    if int(torch.bincount(labels).clamp(max=2).sum()) < 4:  # no label but one has two examples
        return {"taken": True}
    fold = _folds(labels, derive(learner.client.seed, "folds", learner.client.name))
    alone, together = torch.zeros(len(labels), classes), torch.zeros(len(labels), classes)
    for k in range(FOLDS):
        held, kept = fold == k, fold != k
        if not bool(held.any()):
            continue
        texts = torch.cat([learner.public, learner.own[held]])
        own, answers = head_scores(learner.own[kept], labels[kept], classes, texts).split(
            [len(learner.public), int(held.sum())]
        )
        known = replace(learner.scores, public=own, labels=labels[kept])
        consensus = knowledge.scores(z, known, knowledge.upload(z, known), received)
        scores = extrapolate(learner.public, consensus, learner.own)
        a, b = calibration(scores[kept], labels[kept])
        alone[held], together[held] = answers, a * scores[held] + b
    own_loss, peers_loss = _losses(alone, labels), _losses(together, labels)
    worse = peers_loss - own_loss
    error = float(worse.std() / math.sqrt(len(labels)))
    return {
        "taken": float(worse.mean()) <= error,
        "own_loss": round(float(own_loss.mean()), 4),
        "peers_loss": round(float(peers_loss.mean()), 4),
        "standard_error": round(error, 4),
        "own_right": round(float((alone.argmax(1) == labels).float().mean()), 4),
        "peers_right": round(float((together.argmax(1) == labels).float().mean()), 4),
    }


def _folds(labels: Tensor, seed: int) -> Tensor:
    """Return the fold of each example (n,): every label is spread over the folds, so that none loses all of a label."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % FOLDS
    return fold


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
