"""The teacher of equation (14): a client's own scores and its peers', weighted by what predicts its own labels; pure.

    (14)  q_i = softmax(β · standardise(c P_i + a Z Σ_j a_ij W_j) + b)

P_i are the client's own scores of the public texts, Z Σ_j a_ij W_j its peers' (`directions`). c, a and b are fitted to
the client's own labels; of few labels, c and a are those of Z (W_i + Σ_j a_ij W_j).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from h2tune.functional.directions import centred

SLOPE = 1.0
"""β of equation (14): slope of the teacher in standard deviations of the scores; chosen on validation data.

Steeper teachers of few labels were as accurate, and their clients overconfident.
"""
STEEP = 2.5
"""β for a client whose own labels count at least as much as the teacher: it learns little of a soft one."""
TYPICAL = 1.75
"""Slope of a consensus that fits few labels best, on validation data: the mean of the prior of slopes."""
OWN_SPREAD, PEERS_SPREAD = 0.3, 0.4
"""Standard deviations of the prior of the two slopes; chosen on validation data."""
SPREAD = 1.0
"""Standard deviation of the Gaussian prior of the intercepts b, around the mean of the public texts."""


def covered(public: Float[Tensor, "n d"], own: Float[Tensor, "m d"], directions: int = 64) -> float:
    """Return how much of a client's own texts the public ones cover: about 1 for the same kind, less for others.

    The leading principal directions of every other public text hold a share of the variance of the client's own
    texts, and a share of that of the remaining public texts. This is their ratio.

    Args:
        public: The client's features of the public texts.
        own: Those of its own texts, on the same scale; one at least.
        directions: Most directions.
    """
    known, others = public[::2].double(), public[1::2].double()
    mean = known.mean(0)
    count = max(1, min(directions, len(known) // 2))
    basis = torch.linalg.svd(known - mean, full_matrices=False)[2][:count]

    def held(texts: Tensor) -> float:
        centred = texts.double() - mean
        return float((centred @ basis.T).square().sum() / centred.square().sum().clamp(min=1e-12))

    return held(own) / max(held(others), 1e-12)


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
