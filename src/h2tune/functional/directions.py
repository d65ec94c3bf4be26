"""Knowledge as directions of the common coordinates: equations (11), (13) and (14).

All clients know Z (n, R), the common coordinates of n public texts. A client's predictions on these texts, regressed on
Z, are comparable between models:

    (11)  W_i = (ZᵀZ + λ n I)⁻¹ Zᵀ P_i, ‖W_i‖ = 1     P_i (n, C): log-probabilities, centred over texts and labels
    (13)  a_ij = ⟨W_i, W_j⟩ for clients with the same labels, 0 for others
    (14)  q_i = softmax(β · standardise(Z W) + b)      W = W_i + Σ_j a_ij W_j, the teacher on public texts

The sign of a_ij matters: a client with swapped labels contributes with the opposite sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 0.01
"""λ of equation (11): R² on held-out texts is flat from 0.001 to 0.1."""
SLOPE = 2.5
"""β of equation (14): slope of the teacher in standard deviations of the scores; chosen on validation data."""
SPREAD = 1.0
"""Standard deviation of the Gaussian prior of the intercepts b, around the mean of the public texts."""


def centred(scores: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return scores without the mean over labels of each text, and without the mean over texts of each label."""
    scores = scores - scores.mean(1, keepdim=True)
    return scores - scores.mean(0)


def label_coordinates(
    z: Float[Tensor, "n R"], scores: Float[Tensor, "n C"], ridge: float = RIDGE
) -> Float[Tensor, "R C"]:
    """Return W of equation (11), of unit Frobenius norm; zero where the scores do not depend on the text.

    Args:
        z: Common coordinates of the public texts.
        scores: Log-probabilities of the labels on them.
        ridge: λ.
    """
    z, targets = z.double(), centred(scores.double())
    gram = z.T @ z
    gram.diagonal().add_(ridge * len(z))
    directions = torch.linalg.solve(gram, z.T @ targets)
    norm = directions.norm()
    return (directions / norm if norm > 1e-9 else torch.zeros_like(directions)).float()


def cosines(directions: Float[Tensor, "k R C"]) -> Float[Tensor, "k k"]:
    """Return a of equation (13) of clients with the same labels: ⟨W_i, W_j⟩, one on the diagonal."""
    flat = directions.double().flatten(1)
    products = flat @ flat.T
    return products.fill_diagonal_(1.0).float()


def from_peers(directions: Float[Tensor, "k R C"], weights: Float[Tensor, "k k"]) -> Float[Tensor, "k R C"]:
    """Return Σ_{j≠i} a_ij W_j for every client i of a group."""
    others = weights.double().clone().fill_diagonal_(0.0)
    return torch.einsum("ij,jrc->irc", others, directions.double()).float()


def scores_of(z: Float[Tensor, "n R"], directions: Float[Tensor, "R C"]) -> Float[Tensor, "n C"]:
    """Return Z W, centred, with unit variance over all labels; zero where W is zero."""
    return unit_variance(z.double() @ directions.double())


def unit_variance(scores: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return scores, centred over texts and labels, with unit variance over all labels; zero where they are alike."""
    scores = centred(scores.double())
    deviation = scores.std()
    return (scores / deviation if deviation > 1e-9 else scores).float()


def intercepts(
    scores: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    slope: float = SLOPE,
    spread: float = SPREAD,
    steps: int = 50,
) -> Float[Tensor, " C"]:
    """Return the intercepts b of equation (14) from a client's own labels: maximum a posteriori, by Newton's method.

    Args:
        scores: Scores of the client's own texts, on the scale of the public texts' scores.
        labels: Their labels.
        slope: β.
        spread: Standard deviation of the prior of b.
        steps: Most Newton steps.
    """
    logits, count = slope * scores.double(), scores.shape[1]
    b = torch.zeros(count, dtype=torch.float64)
    observed = torch.bincount(labels, minlength=count).double()
    for _ in range(steps):
        p = (logits + b).softmax(1)
        gradient = p.sum(0) - observed + b / spread**2
        hessian = torch.diag(p.sum(0)) - p.T @ p + torch.eye(count, dtype=torch.float64) / spread**2
        step = torch.linalg.solve(hessian, gradient)
        b = b - step
        if float(step.abs().max()) < 1e-10:
            break
    return b.float()


def teacher(
    scores: Float[Tensor, "n C"], b: Float[Tensor, " C"], slope: float = SLOPE
) -> Float[Tensor, "n C"]:
    """Return q of equation (14): probabilities of the labels on the public texts."""
    return (slope * scores + b).softmax(1)


def groups_of(label_sets: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Return the positions of clients with equal label sets, group by group, in order of first appearance."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, labels in enumerate(label_sets):
        groups.setdefault(labels, []).append(position)
    return list(groups.values())
