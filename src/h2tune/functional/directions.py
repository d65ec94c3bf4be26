"""Knowledge as directions of the common coordinates: equations (11) and (13); `teacher` has (14).

All clients know Z (n, R), the common coordinates of n public texts. A client's predictions on these texts, regressed on
Z, are comparable between models:

    (11)  W_i = (ZᵀZ + λ n I)⁻¹ Zᵀ P_i, ‖W_i‖ = 1     P_i (n, C): log-probabilities, centred over texts and labels
    (13)  a_ij = s_i s_j g_i g_j v_j                          for clients with the same labels, 0 for others

Relevance comes from one factor of the cosines, ⟨W_i, W_j⟩ ≈ r_i r_j: r_i says how much of W_i is common. s_i is the
sign of r_i: a client with swapped labels counts with the opposite sign. v_j grows with the common share of W_j (the
weights of Bartlett's factor score, with mean one). g_i = (1 − c_i² / t_i²)₊ with
`t_i = |r_i| · mean|r| · √(k − 1) / chance` leaves out clients whose cosines are no larger than those of random
directions; c_i = 1, but 3 where r_i is negative, since swapped labels are rare and chance is not.
Deviation: METHOD (13) has a_ij = ⟨W_i, W_j⟩; with 32 labels these are small, so that a client hears itself alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RIDGE = 0.01
"""λ of equation (11): R² on held-out texts is flat from 0.001 to 0.1."""
SWAPPED = 3.0
"""c of a negative loading: 0.6 % of honest clients with 24 labels are below −1, none below −3, of swapped ones 97 %."""
MANY = 200
"""Clients from which the factor is found by iteration: an eigendecomposition grows with their cube."""
SETTLED = 1e-7
"""Change of every r² from which it is found."""
MOST_SHARED = 0.9
"""Largest share r² of a direction that is taken as common."""


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
    """Return ⟨W_i, W_j⟩ of clients with the same labels, one on the diagonal."""
    flat = directions.double().flatten(1)
    products = flat @ flat.T
    return products.fill_diagonal_(1.0).float()


def capped(
    similarity: Float[Tensor, "k k"], hostile: int, knows: Bool[Tensor, " k"] | None = None
) -> Float[Tensor, "k k"]:
    """Return cosines in which a client's f largest count as its next one, so that f copies are no factor of their own.

    Args:
        similarity: Cosines of the clients' directions.
        hostile: f; nothing changes with 0.
        knows: Which clients sent a direction; all by default.
    """
    count = len(similarity) if knows is None else int(knows.sum())
    if not hostile or count < 2:
        return similarity
    sizes = similarity.abs().clone().fill_diagonal_(0.0)
    ordered = sizes.sort(1, descending=True).values
    limits = ordered[:, min(hostile, count - 2)]  # of a small group, the smallest
    most = torch.minimum(limits[:, None], limits[None, :])
    return (similarity.sign() * torch.minimum(sizes, most)).fill_diagonal_(1.0)


def loadings(similarity: Float[Tensor, "k k"], steps: int = 100) -> Float[Tensor, " k"]:
    """Return r of one factor, ⟨W_i, W_j⟩ ≈ r_i r_j for i ≠ j, by principal axes; most of the r are positive.

    Args:
        similarity: Cosines of two clients or more.
        steps: Iterations, the most of them with MANY clients.
    """
    rest: Tensor = similarity.double().clone().fill_diagonal_(0.0)
    count = len(rest)
    shared = rest.abs().sum(1) / (count - 1)  # r_i², estimated
    r = shared.sqrt()
    for _ in range(steps):
        before = shared
        value, vector = _leading(rest + torch.diag(shared), r)
        r = vector * value.clamp(min=0.0).sqrt()
        shared = r.square().clamp(max=MOST_SHARED)
        if count >= MANY and float((shared - before).abs().max()) < SETTLED:
            break
    return (r * (1.0 if float(r.sum()) >= 0 else -1.0)).float()


def _leading(matrix: Float[Tensor, "k k"], near: Float[Tensor, " k"]) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue and its vector, of unit norm; `near` is where the search begins."""
    if len(matrix) < MANY:
        values, vectors = torch.linalg.eigh(matrix)
        return values[-1], vectors[:, -1]
    values, vectors = torch.lobpcg(matrix, k=1, X=near[:, None].clone(), largest=True, tol=1e-9, niter=200)
    return values[0], vectors[:, 0]


def relevance(
    similarity: Float[Tensor, "k k"], dimensions: int, knows: Bool[Tensor, " k"] | None = None
) -> Float[Tensor, "k k"]:
    """Return a of equation (13), one on the diagonal.

    r is shrunk halfway to its mean before it is turned into weights, since a few dozen labels say little of it. Clients
    that know nothing yet, such as those without labels, give nothing and take what the majority says.

    Args:
        similarity: Cosines of the clients' directions.
        dimensions: R · (C − 1), degrees of freedom of a direction; chance is 1 / √dimensions.
        knows: Which clients sent a direction; all by default.
    """
    count = len(similarity)
    knows = torch.ones(count, dtype=torch.bool) if knows is None else knows
    given, taken = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    if int(knows.sum()) == 1:
        given[knows] = 1.0
    elif bool(knows.any()):
        r = loadings(similarity[knows][:, knows]).double()
        mean = r.abs().mean().clamp(min=1e-9)
        share = (r.abs() + mean) / 2
        weight = share / (1 - share.square().clamp(max=MOST_SHARED))
        t = r.abs() * mean * math.sqrt((len(r) - 1) * dimensions)
        least = torch.where(r < 0, SWAPPED, 1.0)
        taken[knows] = (1 - (least / t.clamp(min=1e-9)).square()).clamp(min=0.0) * r.sign()
        given[knows] = taken[knows] * weight / weight.mean()
    return (taken[:, None] * given[None, :]).fill_diagonal_(1.0).float()


def from_peers(directions: Float[Tensor, "k R C"], weights: Float[Tensor, "k k"]) -> Float[Tensor, "k R C"]:
    """Return Σ_{j≠i} a_ij W_j for every client i of a group."""
    others = weights.double().clone().fill_diagonal_(0.0)
    return torch.einsum("ij,jrc->irc", others, directions.double()).float()


def groups_of(label_sets: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Return the positions of clients with equal label sets, group by group, in order of first appearance."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, labels in enumerate(label_sets):
        groups.setdefault(labels, []).append(position)
    return list(groups.values())
