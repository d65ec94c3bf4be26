"""Knowledge as directions of the common coordinates: equations (11), (13) and (14).

All clients know Z (n, R), the common coordinates of n public texts. A client's predictions on these texts, regressed on
Z, are comparable between models:

    (11)  W_i = (ZᵀZ + λ n I)⁻¹ Zᵀ P_i, ‖W_i‖ = 1     P_i (n, C): log-probabilities, centred over texts and labels
    (13)  a_ij = s_i s_j g_i g_j v_j                          for clients with the same labels, 0 for others
    (14)  q_i = softmax(β · standardise(c P_i + a Z Σ_j a_ij W_j) + b)      the teacher on public texts

Relevance comes from one factor of the cosines, ⟨W_i, W_j⟩ ≈ r_i r_j: r_i says how much of W_i is common. s_i is the
sign of r_i: a client with swapped labels counts with the opposite sign. v_j grows with the common share of W_j (the
weights of Bartlett's factor score, with mean one). g_i = (1 − 1 / t_i²)₊ with
`t_i = |r_i| · mean|r| · √(k − 1) / chance` leaves out clients whose cosines are no larger than those of random
directions.
c and a are fitted to the client's own labels (`blend`); of few labels they are those of Z (W_i + Σ_j a_ij W_j).
Deviation: METHOD (13) has a_ij = ⟨W_i, W_j⟩; with 32 labels these are small, so that a client hears itself alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RIDGE = 0.01
"""λ of equation (11): R² on held-out texts is flat from 0.001 to 0.1."""
SLOPE = 2.5
"""β of equation (14): slope of the teacher in standard deviations of the scores; chosen on validation data."""
MOST_SHARED = 0.9
"""Largest share r² of a direction that is taken as common."""
TYPICAL = 1.75
"""Slope of a consensus that fits few labels best, on validation data: the mean of the prior of slopes."""
OWN_SPREAD, PEERS_SPREAD = 0.3, 0.4
"""Standard deviations of the prior of the two slopes; chosen on validation data."""
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
    """Return ⟨W_i, W_j⟩ of clients with the same labels, one on the diagonal."""
    flat = directions.double().flatten(1)
    products = flat @ flat.T
    return products.fill_diagonal_(1.0).float()


def loadings(similarity: Float[Tensor, "k k"], steps: int = 100) -> Float[Tensor, " k"]:
    """Return r of one factor, ⟨W_i, W_j⟩ ≈ r_i r_j for i ≠ j, by principal axes; most of the r are positive.

    Args:
        similarity: Cosines of two clients or more.
        steps: Iterations.
    """
    rest: Tensor = similarity.double().clone().fill_diagonal_(0.0)
    count = len(rest)
    shared = rest.abs().sum(1) / (count - 1)  # r_i², estimated
    r = shared.sqrt()
    for _ in range(steps):
        values, vectors = torch.linalg.eigh(rest + torch.diag(shared))
        r = vectors[:, -1] * values[-1].clamp(min=0.0).sqrt()
        shared = r.square().clamp(max=MOST_SHARED)
    return (r * (1.0 if float(r.sum()) >= 0 else -1.0)).float()


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
        taken[knows] = (1 - 1 / t.square().clamp(min=1.0)) * r.sign()
        given[knows] = taken[knows] * weight / weight.mean()
    return (taken[:, None] * given[None, :]).fill_diagonal_(1.0).float()


def from_peers(directions: Float[Tensor, "k R C"], weights: Float[Tensor, "k k"]) -> Float[Tensor, "k R C"]:
    """Return Σ_{j≠i} a_ij W_j for every client i of a group."""
    others = weights.double().clone().fill_diagonal_(0.0)
    return torch.einsum("ij,jrc->irc", others, directions.double()).float()


def unit_variance(scores: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return scores, centred over texts and labels, with unit variance over all labels; zero where they are alike."""
    return on_scale(scores, scores[:0])[0]


def on_scale(
    scores: Float[Tensor, "n C"], others: Float[Tensor, "m C"]
) -> tuple[Float[Tensor, "n C"], Float[Tensor, "m C"]]:
    """Return `unit_variance(scores)`, and the scores of other texts on the same scale."""
    scores, others = (s.double() - s.double().mean(1, keepdim=True) for s in (scores, others))
    middle = scores.mean(0)
    deviation = (scores - middle).std()
    unit = deviation if deviation > 1e-9 else torch.ones_like(deviation)
    return ((scores - middle) / unit).float(), ((others - middle) / unit).float()


def two_parts(
    z: Float[Tensor, "n R"], own: Float[Tensor, "R C"], peers: Float[Tensor, "R C"]
) -> tuple[float, Float[Tensor, "n C"], float]:
    """Return how much of the scores Z (W_i + Σ_j a_ij W_j) each of the two parts makes.

    Args:
        z: Common coordinates of the public texts.
        own: W_i.
        peers: Σ_j a_ij W_j.

    Returns:
        The standard deviation of Z W_i, the centred scores Z Σ_j a_ij W_j, both in units of the standard deviation of
        the sum, and this unit.
    """
    mine, theirs = centred(z.double() @ own.double()), centred(z.double() @ peers.double())
    unit = float((mine + theirs).std())
    if unit < 1e-9:  # opposites: only the client itself is left
        return 1.0, torch.zeros_like(theirs).float(), 1.0
    return float(mine.std()) / unit, (theirs / unit).float(), unit


def intercepts(
    scores: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    slope: float = SLOPE,
    spread: float = SPREAD,
) -> Float[Tensor, " C"]:
    """Return the intercepts b of equation (14) from a client's own labels: maximum a posteriori.

    Args:
        scores: Scores of the client's own texts, on the scale of the public texts' scores.
        labels: Their labels.
        slope: β.
        spread: Standard deviation of the prior of b.
    """
    count = scores.shape[1]
    inputs = torch.eye(count, dtype=torch.float64).expand(len(scores), -1, -1)
    prior = torch.full((count,), 1 / spread**2, dtype=torch.float64)
    return _posterior_mode(inputs, slope * scores.double(), labels, prior, torch.zeros_like(prior)).float()


def blend(
    own: Float[Tensor, "n C"],
    peers: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    share: float,
) -> tuple[float, float, Float[Tensor, " C"]]:
    """Return slopes c, a ≥ 0 and intercepts b of softmax(c · own + a · peers + b), from a client's own labels.

    A maximum a posteriori fit, by stacking (Wolpert 1992): with few labels the two count as in Z (W_i + Σ_j a_ij W_j),
    with many the client relies on what predicts them.

    Args:
        own: The client's scores of its own texts, fitted to others of its labels, of unit variance on the public texts.
        peers: Z Σ_j a_ij W_j on its own texts, in units of the standard deviation of Z (W_i + Σ_j a_ij W_j).
        labels: Their labels.
        share: Standard deviation of Z W_i on the public texts, in the same units.
    """
    count = own.shape[1]
    features = torch.stack([own.double(), peers.double()], dim=2)
    ones = torch.eye(count, dtype=torch.float64).expand(len(own), -1, -1)
    precision = torch.tensor([OWN_SPREAD**-2, PEERS_SPREAD**-2] + [SPREAD**-2] * count, dtype=torch.float64)
    middle = torch.tensor([TYPICAL * share, TYPICAL] + [0.0] * count, dtype=torch.float64)
    inputs = torch.cat([features, ones], dim=2)
    used = [0, 1]
    while True:  # at most three times: a negative slope is set to zero, and the rest is fitted again
        kept = [*used, *range(2, 2 + count)]
        value = _posterior_mode(
            inputs[:, :, kept], torch.zeros_like(own).double(), labels, precision[kept], middle[kept]
        )
        negative = [i for place, i in enumerate(used) if float(value[place]) < 0]
        if not negative:
            break
        used.remove(min(negative, key=lambda i: float(value[used.index(i)])))
    slopes = {i: float(value[place]) for place, i in enumerate(used)}
    return slopes.get(0, 0.0), slopes.get(1, 0.0), value[len(used) :].float()


def _posterior_mode(
    inputs: Float[Tensor, "n C k"],
    offsets: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    precision: Float[Tensor, " k"],
    middle: Float[Tensor, " k"],
    steps: int = 100,
) -> Float[Tensor, " k"]:
    """Return the mode of θ for logits = inputs θ + offsets and a Gaussian prior, by damped Newton's method."""

    def loss(at: Tensor) -> Tensor:
        fit = torch.nn.functional.cross_entropy(inputs @ at + offsets, labels, reduction="sum")
        return fit + (precision * (at - middle).square()).sum() / 2

    target = torch.nn.functional.one_hot(labels, offsets.shape[1]).double()
    value = middle.clone()
    for _ in range(steps):
        p = (inputs @ value + offsets).softmax(1)
        gradient = torch.einsum("nc,nck->k", p - target, inputs) + precision * (value - middle)
        mean = torch.einsum("nc,nck->nk", p, inputs)
        hessian = torch.einsum("nc,nck,ncl->kl", p, inputs, inputs) - mean.T @ mean + torch.diag(precision)
        step, before = torch.linalg.solve(hessian, gradient), loss(value)
        while float(step.abs().max()) > 1e-10 and loss(value - step) > before:
            step = step / 2
        value = value - step
        if float(step.abs().max()) <= 1e-10:
            break
    return value


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
