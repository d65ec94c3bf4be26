"""A client's teacher from two parts, its own scores and its peers', weighted by what predicts its own labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from h2tune.functional.directions import label_coordinates
from h2tune.functional.teacher import blend, covered, on_scale, two_parts, unit_variance
from h2tune.training.linear_head import extrapolate, head_scores

FOLDS = 5
"""Parts of a client's own labels: what it knows itself is judged on labels that it has not seen."""


@dataclass(frozen=True)
class OwnScores:
    """What a client knows before the exchange.

    Args:
        features: Its frozen features of the public texts (n, d), standardised.
        own_features: Features of its own texts (m, d), on the same scale.
        labels: Labels of its own texts (m,).
        public: Its scores of the public texts (n, C), log-probabilities; zeros if it knows nothing.
        own_coordinates: Coordinates of its own texts (m, R), read off its model; empty without coordinates.
        seed: Seed of the folds.
    """

    features: Tensor
    own_features: Tensor
    labels: Tensor
    public: Tensor
    own_coordinates: Tensor
    seed: int

    @property
    def classes(self) -> int:
        """C, the number of labels."""
        return self.public.shape[1]


@dataclass(frozen=True)
class Stacked:
    """A teacher's scores.

    Args:
        public: Scores of the public texts (n, C), centred and of unit variance.
        own: Scores of the client's own texts (m, C) on the same scale; its own part has not seen their labels.
        own_share: Share of the client's own part, from 0 to 1.
    """

    public: Tensor
    own: Tensor
    own_share: float


def stacked(own: OwnScores, z: Tensor, peers: Tensor, on_own: Tensor) -> Stacked:
    """Return the teacher of equation (14).

    Args:
        own: What the client knows.
        z: Common coordinates of the public texts (n, R).
        peers: Σ_j a_ij W_j (R, C).
        on_own: What the peers say of the client's own texts, from `on_own_texts`.
    """
    share, theirs, unit = two_parts(z, label_coordinates(z, own.public), peers)
    on_own = on_own / unit
    mine = unit_variance(own.public)
    held_out = _held_out(own, torch.ones(len(own.labels), dtype=torch.bool))
    c, a, _ = blend(held_out, on_own, own.labels, share)
    scores, of_own = on_scale(c * mine + a * theirs, c * held_out + a * on_own)
    sizes = c * float(mine.std()), a * float(theirs.std())
    return Stacked(scores, of_own, sizes[0] / max(sum(sizes), 1e-9))


def compare_with_own(own: OwnScores, z: Tensor, peers: Tensor, on_own: Tensor) -> dict[str, Any]:
    """Compare the teacher with the client alone by cross-validated log-loss on the client's own labels.

    Both are scored on labels that they have not seen: all that is fitted is fitted to the other folds. The teacher is
    declined where it is worse by more than one standard error of the difference.

    Args:
        own: What the client knows.
        z: Common coordinates of the public texts (n, R).
        peers: Σ_j a_ij W_j (R, C).
        on_own: What the peers say of the client's own texts, from `on_own_texts`.

    Returns:
        `taken`; `covered`, how much of its own texts the public ones cover; and where there is something to compare
        `own_loss`, `peers_loss` and `standard_error` of their difference, in nats per example, and the shares of right
        answers, `own_right` and `peers_right`.
    """
    labels = own.labels
    near = {"covered": round(covered(own.features, own.own_features), 4)} if len(labels) else {}
    if int((torch.bincount(labels) >= 2).sum()) < 2:  # no label but one has two examples
        return {"taken": True, **near}
    alone, together = _cross_validated(own, z, peers, on_own)
    own_loss, peers_loss = _losses(alone, labels), _losses(together, labels)
    worse = peers_loss - own_loss
    error = float(worse.std() / math.sqrt(len(labels)))
    return {
        "taken": float(worse.mean()) <= error,
        **near,
        "own_loss": round(float(own_loss.mean()), 4),
        "peers_loss": round(float(peers_loss.mean()), 4),
        "standard_error": round(error, 4),
        "own_right": round(float((alone.argmax(1) == labels).float().mean()), 4),
        "peers_right": round(float((together.argmax(1) == labels).float().mean()), 4),
    }


def _cross_validated(own: OwnScores, z: Tensor, peers: Tensor, on_own: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (m, C) of the client's own head, and of the teacher, on labels that neither has seen."""
    labels, count = own.labels, len(own.features)
    alone, together = torch.zeros(len(labels), own.classes), torch.zeros(len(labels), own.classes)
    fold = _folds(labels, own.seed)
    for held, kept in ((fold == k, fold != k) for k in fold.unique()):
        answers = _head(own, kept, torch.cat([own.features, own.own_features[held]]))
        alone[held] = answers[count:]
        known, mine = on_scale(answers[:count], answers[count:])
        share, _, unit = two_parts(z, label_coordinates(z, known), peers)
        c, a, b = blend(_held_out(own, kept), on_own[kept] / unit, labels[kept], share)
        together[held] = c * mine + a * on_own[held] / unit + b
    return alone, together


def _folds(labels: Tensor, seed: int) -> Tensor:
    """Return the fold of each example (m,): every label is spread over the folds, so that none loses all of a label."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % FOLDS
    return fold


def on_own_texts(own: OwnScores, z: Tensor, peers: Tensor) -> Tensor:
    """Return Z Σ_j a_ij W_j on the client's own texts (m, C), read off its features."""
    return extrapolate(own.features, z @ peers, own.own_features) if len(own.labels) else own.public[:0]


def _held_out(own: OwnScores, kept: Tensor) -> Tensor:
    """Return the client's own scores of its kept texts, each from a head that has not seen its label."""
    positions = kept.nonzero()[:, 0]
    found, fold = torch.zeros(len(positions), own.classes), _folds(own.labels[kept], own.seed)
    count = len(own.features)
    for k in fold.unique():
        held = positions[fold == k]
        others = kept.clone()
        others[held] = False
        answers = _head(own, others, torch.cat([own.features, own.own_features[held]]))
        _, found[fold == k] = on_scale(answers[:count], answers[count:])
    return found


def _head(own: OwnScores, kept: Tensor, texts: Tensor) -> Tensor:
    """Return log-probabilities of texts from a head on the kept labels; zeros where these are of one kind."""
    labels = own.labels[kept]
    if len(labels.unique()) < 2:
        return torch.zeros(len(texts), own.classes)
    return head_scores(own.own_features[kept], labels, own.classes, texts)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
