"""A client's part of the exchange: its own scores of the public texts, and the lesson it makes of the consensus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.local_client import LocalClient
from h2tune.federation.teaching.knowledge import KNOWLEDGE, Knowledge, OwnScores
from h2tune.federation.teaching.lesson import Lesson
from h2tune.functional.directions import SLOPE, intercepts, teacher
from h2tune.functional.quorum import Teaching
from h2tune.seeds import derive
from h2tune.training.encode import label_tokens
from h2tune.training.linear_head import extrapolate, head_scores, standardise
from h2tune.training.readings import encode_texts, read_rows

FOLDS = 5
"""Parts of a client's own labels in the comparison of the consensus with the client alone."""


@dataclass(frozen=True)
class Learner:
    """A client's frozen features of public texts and of its own, and its own scores.

    Args:
        client: The client.
        public: Features of the public texts (n, d), standardised.
        own: Features of its own training texts (m, d), on the same scale.
        scores: What it knows before the exchange.
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
    if len(set(labels)) < 2:
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

    Args:
        client: The client; `unable` has nothing against it.
        reader: Reads the public texts.
        base: The client's base model.
        tokenizer: Its tokenizer.
        z: Common coordinates of the public texts, if there are any.
    """
    finals = reader.finals(client)
    rows = client.encoded("train", tokenizer)
    own, _, _ = read_rows(
        base, tokenizer, rows, causal=client.causal, modules={}, batch_size=client.evaluate_batch_size
    )
    public, own = standardise(finals, finals), standardise(own, finals)
    order = label_order(client.task.labels)
    labels = order.argsort()[torch.tensor([row.label for row in rows])]
    scores = head_scores(own, labels, len(order), public)
    coordinates = torch.empty(0) if z is None else extrapolate(public, z, own)
    return Learner(client, public, own, OwnScores(scores, coordinates, labels))


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
    b = intercepts(extrapolate(learner.public, scores, learner.own), labels)
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
    """Compare the peers with the client alone by cross-validated log-loss on the client's own labels.

    The peers have not seen these labels; the client's own head is fitted without the part that it is scored on. The
    consensus is declined where it is worse by more than one standard error of the difference.

    Returns:
        `taken`; and where there are peers `own_loss`, `peers_loss`, in nats per example, and `standard_error`.
    """
    peers = knowledge.peers(z, received)
    labels = learner.scores.labels
    if peers is None:
        return {"taken": True}
    scores = extrapolate(learner.public, peers, learner.own)
    draw = torch.Generator().manual_seed(derive(learner.client.seed, "folds", learner.client.name))
    fold = torch.randperm(len(labels), generator=draw) % min(FOLDS, len(labels))
    alone, together = torch.zeros(len(labels)), torch.zeros(len(labels))
    for k in range(int(fold.max()) + 1):
        held, kept = fold == k, fold != k
        if len(labels[kept].unique()) < 2:
            raise H2TuneError("too few examples to compare the consensus with", where=learner.client.name)
        b = intercepts(scores[kept], labels[kept])
        p = (SLOPE * scores[held] + b).log_softmax(1)
        together[held] = -p.gather(1, labels[held, None])[:, 0]
        classes = len(learner.client.task.labels)
        q = head_scores(learner.own[kept], labels[kept], classes, learner.own[held]).log_softmax(1)
        alone[held] = -q.gather(1, labels[held, None])[:, 0]
    worse = together - alone
    error = float(worse.std() / math.sqrt(len(labels)))
    return {
        "taken": float(worse.mean()) <= error,
        "own_loss": round(float(alone.mean()), 4),
        "peers_loss": round(float(together.mean()), 4),
        "standard_error": round(error, 4),
    }
