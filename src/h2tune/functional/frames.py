"""Frames with the same meaning on every model, from coordinates that all clients share on public texts; pure.

Each client runs the same n public texts through its own frozen model. Generalised CCA (MAXVAR) of the clients' final
states gives common coordinates Z (n, R). Frames map a module's inputs to Z, and Z to its outputs:

    (8)  y = W x + (α / r) · B A x + s · B₀ T A₀ x        A₀ (R, d_in), B₀ (d_out, R) frozen, T between them shared
         A₀ = argmin ‖Z − X Aᵀ‖² + λ‖A‖²                  X: the module's inputs on the texts, pooled, mean removed
         B₀ = argmin ‖V − Z Bᵀ‖² + λ‖B‖²                  V: its outputs, pooled and centred

Permuting or rotating a model's hidden units transforms its frames accordingly, so the effect of T is unchanged. T may
be initialised with the directions that separate a client's labels, which are comparable between clients of one task:

    (9)  T = c · Vᵀ V / √k          V (k, R): orthonormal rows, which span a ridge regression of labels on coordinates

Deviation: the paper shares T between private A and B (1). With A and B free, B (I + T) A reaches the same updates for
every T, so T alone need not mean the same on two models; here it does (EXPERIMENTS.md has the measurements).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for λ, in units of the mean eigenvalue; chosen by R² on a fifth of the texts."""


def view(readings: Float[Tensor, "n d"], directions: int, shrink: float = 1e-2) -> Float[Tensor, "n k"]:
    """Return a client's view, sent once: its final states of the texts, centred and whitened, k = min(directions, d).

    Directions of little variance are shrunk instead of scaled up to unit variance.
    """
    centred = (readings - readings.mean(0)).double()
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    u, power = u[:, :directions], s[:directions].square()
    whitened: Tensor = (u * (power / (power + shrink * power.mean()))).float()
    return whitened


def common_coordinates(views: Sequence[Float[Tensor, "n _"]], size: int) -> Float[Tensor, "n R"]:
    """Return Z (MAXVAR): uncorrelated coordinates of unit variance, zero beyond the rank of the views.

    The sign of each coordinate is fixed by its largest entry, so that the order of the views does not matter.
    """
    joint = torch.cat(list(views), dim=1).double()
    # the eigenvectors of the sum of the views' projections: the same for any order of the views
    values, vectors = torch.linalg.eigh(joint @ joint.T)
    top = vectors[:, values > 1e-9].flip(1)[:, :size]
    signs = top.gather(0, top.abs().argmax(0, keepdim=True)).sign()
    z = torch.zeros(len(joint), size, dtype=torch.float64)
    z[:, : top.shape[1]] = top * signs * len(joint) ** 0.5
    return z.float()


def agreement(view: Float[Tensor, "n k"], others: Float[Tensor, "n m"]) -> float:
    """Return how much of what others span a view spans too: 0 as by chance, 1 for all that is possible.

    The mean square of the canonical correlations, less its expectation for random columns.
    """
    one, other = _span(view), _span(others)
    least = min(one.shape[1], other.shape[1])
    if not least:
        return 0.0
    chance = max(one.shape[1], other.shape[1]) / max(1, len(view) - 1)  # columns have mean zero
    share = float((one.T @ other).square().sum()) / least
    return (share - chance) / (1 - chance) if chance < 1 else 0.0


def typical_agreements(views: Sequence[Float[Tensor, "n _"]]) -> list[float]:
    """Return each view's agreement with the others, the median over them; 1 where there is no other.

    What a minority of hostile views sends moves an honest view's median only within what honest views have.
    """
    found = torch.ones(len(views), len(views))
    for i, j in itertools.combinations(range(len(views)), 2):
        found[i, j] = found[j, i] = agreement(views[i], views[j])
    rows = [[*row[:i], *row[i + 1 :]] for i, row in enumerate(found.tolist())]
    return [median(row) if row else 1.0 for row in rows]


def _span(columns: Float[Tensor, "n k"]) -> Float[Tensor, "n _"]:
    """Return an orthonormal basis of centred columns."""
    u, s, _ = torch.linalg.svd((columns - columns.mean(0)).double(), full_matrices=False)
    spanning: Tensor = u[:, s > 1e-6 * s.max().clamp(min=1e-12)]
    return spanning


def down_frame(inputs: Float[Tensor, "n d_in"], z: Float[Tensor, "n R"]) -> Float[Tensor, "R d_in"]:
    """Return A₀, the ridge regression of Z on a module's inputs.

    The inputs' mean direction is projected out, so A₀ needs no offset and (8) stays a plain linear update.
    """
    mean = inputs.mean(0)
    direction = mean / mean.norm().clamp(min=1e-12)
    projected = inputs - (inputs @ direction)[:, None] * direction
    return _ridge(projected, z)


def up_frame(outputs: Float[Tensor, "n d_out"], z: Float[Tensor, "n R"]) -> Float[Tensor, "d_out R"]:
    """Return B₀, the ridge regression of a module's (centred) outputs on Z."""
    return _ridge(z, outputs - outputs.mean(0))


def label_directions(z: Float[Tensor, "n R"], labels: Int[Tensor, " n"]) -> Float[Tensor, "k R"]:
    """Return orthonormal directions of the coordinates that separate the labels: V of equation (9).

    Their number k is the number of labels minus one, or less if the regression has a lower rank.
    """
    z = z - z.mean(0)
    sides = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).to(z.dtype)
    _, strength, rows = torch.linalg.svd(_ridge(z, sides - sides.mean(0)), full_matrices=False)
    kept = strength > 1e-4 * strength.max().clamp(min=1e-12)
    directions: Tensor = rows[kept][: sides.shape[1] - 1]
    return directions


def start_of(directions: Float[Tensor, "k R"], norm: float) -> Float[Tensor, "R R"]:
    """Return T of equation (9), of Frobenius norm c; zero if there are no directions."""
    start: Tensor = norm / max(1, len(directions)) ** 0.5 * directions.T @ directions
    return start


def _ridge(x: Float[Tensor, "n d"], y: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
    """Return W with y ≈ x Wᵀ; the penalty is the one with the least error on the last fifth of the rows."""
    x, y = x.double(), y.double()
    kept = max(1, len(x) - max(1, len(x) // 5))
    products = _products(x[:kept])
    solved = {p: _solve(x[:kept], y[:kept], products, p) for p in PENALTIES}
    best = min(PENALTIES, key=lambda p: float((y[kept:] - x[kept:] @ solved[p].T).square().sum()))
    return _solve(x, y, _products(x), best).float()


def _products(x: Tensor) -> Tensor:
    """Return the smaller Gram matrix, (n, n) or (d, d); most of the time is spent here."""
    return x @ x.T if len(x) < x.shape[1] else x.T @ x


def _solve(x: Tensor, y: Tensor, products: Tensor, penalty: float) -> Tensor:
    """Return the ridge solution (m, d), from the dual problem (n, n) if n < d."""
    damped = products.clone()
    damped.diagonal().add_(penalty * products.diagonal().mean().clamp(min=1e-12))
    if len(x) < x.shape[1]:
        return (x.T @ torch.cholesky_solve(y, torch.linalg.cholesky(damped))).T
    return torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(damped)).T
