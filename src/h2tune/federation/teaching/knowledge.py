"""What clients exchange about the public texts, and how it is combined; one class for each method.

| knowledge | what a client sends | what it receives |
|---|---|---|
| own | nothing | nothing |
| directions | W of equation (11), R × C values | the weighted sum of its peers' W, equation (13) |
| predictions | its scores of all n texts, n × C values | the mean of all clients' scores (FedMD, arXiv 1910.03581) |
| moments | moments, (R + 1) × (R + 1 + C) values | the classifier of their sums (AFL, arXiv 2405.16240) |

Only clients with the same labels share; labels are matched by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from h2tune.federation.messages import Spec, Tensors
from h2tune.federation.teaching.stacking import OwnScores, compare_with_own, on_own_texts, stacked
from h2tune.functional.directions import (
    capped,
    cosines,
    from_peers,
    label_coordinates,
    relevance,
)
from h2tune.functional.quorum import Teaching
from h2tune.functional.teacher import unit_variance
from h2tune.training.linear_head import extrapolate

COORDINATES = 64
"""Common coordinates in which directions are written; more gain little (see EXPERIMENTS.md)."""
MOMENTS_RIDGE = 1.0
"""Ridge of the classifier of summed moments."""


@dataclass(frozen=True)
class Combined:
    """What the server makes of the knowledge of a group of k clients with the same labels.

    Args:
        received: What each client receives.
        weights: Weights of the clients (columns) for each client (rows), (k, k).
        cosines: Cosines of what they sent, (k, k); None where there are no directions.
    """

    received: Sequence[Tensors]
    weights: Tensor
    cosines: Tensor | None = None


@dataclass(frozen=True)
class Taught:
    """A client's teacher: scores of texts, in standard deviations.

    Args:
        public: Scores of the public texts (n, C); empty where there is nothing to learn.
        own: Scores of the client's own texts (m, C).
        facts: What an event says of it: whether it is `taken`, and if not, mostly a `reason`.
    """

    public: Tensor
    own: Tensor
    facts: Mapping[str, Any]


class Knowledge(ABC):
    """What travels, and the teacher that follows from it."""

    needs_coordinates = False
    """Whether clients must agree on common coordinates first."""

    @abstractmethod
    def specs(self, count: int, size: int, classes: int) -> tuple[Spec, Spec]:
        """Return names, shapes and types of what a client sends and receives.

        Args:
            count: n, the number of public texts.
            size: R, the number of coordinates.
            classes: C, the number of labels.
        """

    @abstractmethod
    def upload(self, z: Tensor, own: OwnScores) -> Tensors:
        """Return what a client sends."""

    @abstractmethod
    def combine(self, uploads: Sequence[Mapping[str, Tensor]], hostile: int = 0) -> Combined:
        """Return what the clients of a group receive.

        Args:
            uploads: What each sent.
            hostile: Number f of hostile clients to tolerate; where a method has no rule for that, it is ignored.
        """

    @abstractmethod
    def teach(
        self, z: Tensor, own: OwnScores, sent: Mapping[str, Tensor], received: Mapping[str, Tensor]
    ) -> Taught:
        """Return what a client learns from what it sent and received."""


class Consensus(Knowledge):
    """Knowledge that says for itself how the public texts are scored."""

    @abstractmethod
    def scores(self, z: Tensor, own: OwnScores, received: Mapping[str, Tensor]) -> Tensor:
        """Return scores of the public texts (n, C), on the scale of standard deviations."""

    def teach(
        self, z: Tensor, own: OwnScores, sent: Mapping[str, Tensor], received: Mapping[str, Tensor]
    ) -> Taught:
        scores = self.scores(z, own, received)
        if not bool(scores.any()):
            return nothing("nobody knows its labels")
        mine = extrapolate(own.features, scores, own.own_features) if len(own.labels) else scores[:0]
        return Taught(scores, mine, {"taken": True})


class Own(Consensus):
    """Self-training: a client's own predictions, nothing shared."""

    def specs(self, count: int, size: int, classes: int) -> tuple[Spec, Spec]:
        return {}, {}

    def upload(self, z: Tensor, own: OwnScores) -> Tensors:
        return {}

    def combine(self, uploads: Sequence[Mapping[str, Tensor]], hostile: int = 0) -> Combined:
        return Combined([{} for _ in uploads], torch.eye(len(uploads)))

    def scores(self, z: Tensor, own: OwnScores, received: Mapping[str, Tensor]) -> Tensor:
        return unit_variance(own.public)


class Directions(Knowledge):
    """Equations (11) and (13): label directions in the common coordinates, weighted by relevance.

    A client weighs what its peers say against its own scores, and declines what does worse on its own labels.
    """

    needs_coordinates = True

    def specs(self, count: int, size: int, classes: int) -> tuple[Spec, Spec]:
        shape = ((size, classes), "float32")
        return {"direction": shape}, {"peers": shape}

    def upload(self, z: Tensor, own: OwnScores) -> Tensors:
        return {"direction": label_coordinates(z, own.public)}

    def combine(self, uploads: Sequence[Mapping[str, Tensor]], hostile: int = 0) -> Combined:
        directions = torch.stack([upload["direction"] for upload in uploads])
        _, size, classes = directions.shape
        knows = directions.flatten(1).any(1)  # a client without labels sends zeros
        similarity = cosines(directions)
        weights = relevance(capped(similarity, hostile, knows), size * (classes - 1), knows)
        return Combined([{"peers": part} for part in from_peers(directions, weights)], weights, similarity)

    def teach(
        self, z: Tensor, own: OwnScores, sent: Mapping[str, Tensor], received: Mapping[str, Tensor]
    ) -> Taught:
        peers = received["peers"]
        if not bool(peers.any()):
            return nothing("nobody else's labels are like its own")  # no peers, or none that agree
        on_own = on_own_texts(own, z, peers)
        found = stacked(own, z, peers, on_own)
        facts = compare_with_own(own, z, peers, on_own) | {"own_share": round(found.own_share, 4)}
        return Taught(found.public, found.own, facts)


class Predictions(Consensus):
    """FedMD (arXiv 1910.03581): the mean of all clients' predictions on the public texts."""

    def specs(self, count: int, size: int, classes: int) -> tuple[Spec, Spec]:
        shape = ((count, classes), "float32")
        return {"predictions": shape}, {"mean": shape}

    def upload(self, z: Tensor, own: OwnScores) -> Tensors:
        return {"predictions": unit_variance(own.public)}

    def combine(self, uploads: Sequence[Mapping[str, Tensor]], hostile: int = 0) -> Combined:
        mean = torch.stack([upload["predictions"] for upload in uploads]).mean(0)
        return Combined([{"mean": mean} for _ in uploads], torch.ones(len(uploads), len(uploads)))

    def scores(self, z: Tensor, own: OwnScores, received: Mapping[str, Tensor]) -> Tensor:
        return unit_variance(received["mean"])


class Moments(Consensus):
    """AFL (arXiv 2405.16240): a ridge classifier of summed moments, in the common coordinates.

    Deviation: the paper has one frozen model for all; here each client reads its texts in the common coordinates.
    """

    needs_coordinates = True

    def specs(self, count: int, size: int, classes: int) -> tuple[Spec, Spec]:
        sent: Spec = {"second": ((size + 1, size + 1), "float32"), "first": ((size + 1, classes), "float32")}
        return sent, {"classifier": ((size + 1, classes), "float32")}

    def upload(self, z: Tensor, own: OwnScores) -> Tensors:
        x = _with_ones(own.own_coordinates)
        y = torch.nn.functional.one_hot(own.labels, own.public.shape[1]).to(x.dtype)
        return {"second": x.T @ x, "first": x.T @ y}

    def combine(self, uploads: Sequence[Mapping[str, Tensor]], hostile: int = 0) -> Combined:
        second, first = (
            torch.stack([u[key] for u in uploads]).double().sum(0) for key in ("second", "first")
        )
        second.diagonal().add_(MOMENTS_RIDGE)
        classifier = torch.linalg.solve(second, first).float()
        return Combined([{"classifier": classifier} for _ in uploads], torch.ones(len(uploads), len(uploads)))

    def scores(self, z: Tensor, own: OwnScores, received: Mapping[str, Tensor]) -> Tensor:
        return unit_variance(_with_ones(z) @ received["classifier"])


KNOWLEDGE: dict[Teaching, Knowledge] = {
    "own": Own(),
    "directions": Directions(),
    "predictions": Predictions(),
    "moments": Moments(),
}


def nothing(reason: str) -> Taught:
    """Return that there is nothing to learn."""
    return Taught(torch.empty(0, 0), torch.empty(0, 0), {"taken": False, "reason": reason})


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
