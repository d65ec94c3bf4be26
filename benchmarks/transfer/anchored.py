"""Frames that mean the same on every model, and a middle matrix between them.

    Z      = generalised CCA (MAXVAR) of all clients' final pooled outputs on the public sentences    (n, k)
    A      = argmin ‖Z − (U − μ) Aᵀ‖² + λ‖A‖²      U: pooled inputs of a module on those sentences    (k, d_in)
    B      = argmin ‖V − ν − Z Bᵀ‖² + λ‖B‖²        V: pooled outputs of that module                   (d_out, k)
    y      = W x + s · B T A (x − μ)               T alone travels between models                     (k, k)

λ is chosen by R² on a fifth of the public sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from clients import Client, States
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

Key = tuple[int, str]
Middles = dict[Key, Tensor]
PENALTIES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)  # times the mean variance of an input
DIRECTIONS = 256  # principal directions that a view sends


class Frame(NamedTuple):
    """The two ends of a middle matrix at one module."""

    down: Tensor  # A (k, d_in)
    center: Tensor  # μ (d_in,)
    up: Tensor  # B (d_out, k)


def view_basis(view: Tensor, directions: int = DIRECTIONS, shrink: float = 1e-2) -> Tensor:
    """Return what a client sends once: its view of the n public sentences, whitened, (n, directions)."""
    centred = (view - view.mean(0)).double()
    u, s, _ = torch.linalg.svd(centred / centred.pow(2).mean().sqrt(), full_matrices=False)
    u, power = u[:, :directions], s[:directions].pow(2)
    return u * (power / (power + shrink * power.mean()))


def common_coordinates(bases: Sequence[Tensor], k: int) -> Tensor:
    """Return Z (n, k): what the clients' bases have most in common; uncorrelated, of unit variance."""
    joint = torch.cat(list(bases), dim=1)
    u, _, _ = torch.linalg.svd(joint, full_matrices=False)
    return (u[:, :k] * len(joint) ** 0.5).float()


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Return W (d_y, d_x) such that y − mean(y) ≈ W (x − mean(x)), and R² on the rows that chose the penalty."""
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]
    gram, cross = x[kept].T @ x[kept], x[kept].T @ y[kept]

    def solve(gram: Tensor, cross: Tensor, penalty: float) -> Tensor:
        damped = gram + penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        return torch.cholesky_solve(cross, torch.linalg.cholesky(damped)).T

    def r2(penalty: float) -> float:
        error = y[held] - x[held] @ solve(gram, cross, penalty).T
        return 1 - (error.pow(2).sum() / y[held].pow(2).sum()).item()

    score, penalty = max((r2(p), p) for p in PENALTIES)
    weight = solve(gram + x[held].T @ x[held], cross + x[held].T @ y[held], penalty)
    return weight.float(), score


def anchored_frames(public: Mapping[str, Tensor], z: Tensor) -> dict[Key, Frame]:
    """Return a client's frames from its own features on the public sentences and the common coordinates."""
    frames = {}
    for name in public:
        slot, role, *end = name.split("/")
        if end == ["in"]:
            down, _ = ridge(public[name], z)
            up, _ = ridge(z, public[f"{slot}/{role}/out"])
            frames[int(slot), role] = Frame(down, public[name].mean(0), up)
    return frames


def random_frames(frames: Mapping[Key, Frame], seed: int) -> dict[Key, Frame]:
    """Return frames of the same norms with random directions and the same centres."""
    g = torch.Generator().manual_seed(seed)

    def like(t: Tensor) -> Tensor:
        r = torch.randn(t.shape, generator=g)
        return r * t.norm() / r.norm()

    return {key: Frame(like(f.down), f.center, like(f.up)) for key, f in frames.items()}


def random_middles(middles: Middles, seed: int) -> Middles:
    """Return random middle matrices with the same norm in every module."""
    g = torch.Generator().manual_seed(seed)
    drawn = {key: torch.randn(t.shape, generator=g) for key, t in middles.items()}
    return {key: r * middles[key].norm() / r.norm() for key, r in drawn.items()}


def truncated(middle: Tensor, rank: int) -> Tensor:
    """Return the best approximation of T (k, k) with `rank` singular directions."""
    u, s, v = torch.linalg.svd(middle)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@contextmanager
def carrying(client: Client, frames: Mapping[Key, Frame], middles: Middles, scale: float) -> Iterator[None]:
    """Let the client compute with s · B T A (x − μ) added to its framed modules."""

    def hook(key: Key):
        down, center, up = frames[key]

        def add(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            change = (inputs[0].float() - center) @ down.T @ middles[key].T @ up.T
            return output + (scale * change).to(output.dtype)

        return add

    handles = [client.modules[key].register_forward_hook(hook(key)) for key in frames]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train_middles(
    client: Client, frames: Mapping[Key, Frame], states: States, labels: np.ndarray, *, seed: int,
    learning_rate: float = 3e-3, epochs: int = 1, batch_size: int = 32,
) -> Middles:  # fmt: skip
    """Train T from zero, with frames, model and a linear head fitted beforehand on the same labels all frozen."""
    weight, bias = linear_head(client.features(states), labels)
    k = next(iter(frames.values())).down.shape[0]
    middles = {key: torch.zeros(k, k, requires_grad=True) for key in frames}
    optimiser = torch.optim.AdamW(middles.values(), lr=learning_rate, weight_decay=0.0)
    steps = epochs * (len(states) // batch_size)
    warm = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: min(1, (i + 1) / 20) * (1 - i / steps))
    g = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(states), generator=g)
        for rows in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
            with carrying(client, frames, middles, 1.0):
                features = client.read(*client.forward([states[i] for i in rows]))
            target = torch.tensor(labels[rows.numpy()], dtype=torch.float32)
            loss = nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            warm.step()
    return {key: t.detach() for key, t in middles.items()}


def linear_head(features: Tensor, labels: np.ndarray) -> tuple[Tensor, float]:
    """Return weight and bias of a logistic regression on standardised features, for the raw ones."""
    scaler = StandardScaler().fit(features.numpy())
    fitted = LogisticRegression(C=0.01, max_iter=500).fit(scaler.transform(features.numpy()), labels)
    weight = fitted.coef_[0] / scaler.scale_
    bias = fitted.intercept_[0] - weight @ scaler.mean_
    return torch.tensor(weight, dtype=torch.float32), float(bias)


def probe(
    pool: Tensor, pool_labels: np.ndarray, test: Tensor, labels: np.ndarray, *, seed: int,
    shots: int = 48, draws: int = 10, only: int | None = None,
) -> float:  # fmt: skip
    """Return the mean accuracy of a linear probe on a few labels drawn from the pool; `only` names one draw."""
    scaler = StandardScaler().fit(pool.numpy())  # the pool's features without its labels
    x, xt = scaler.transform(pool.numpy()), scaler.transform(test.numpy())
    scores = []
    for n, rows in enumerate(few(pool_labels, seed=seed, shots=shots, draws=draws)):
        if only not in (None, n):
            continue
        fitted = LogisticRegression(C=0.01, max_iter=300).fit(x[rows], pool_labels[rows])
        scores.append(fitted.score(xt, labels))
    return float(np.mean(scores))


def few(labels: np.ndarray, *, seed: int, shots: int = 48, draws: int = 10) -> Iterator[np.ndarray]:
    """Yield rows of a few texts, as many of each label, `draws` times."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        halves = [rng.choice(np.flatnonzero(labels == c), shots // 2, replace=False) for c in (0, 1)]
        yield np.concatenate(halves)


def verbaliser(client: Client, pool: Tensor, test: Tensor, labels: np.ndarray) -> tuple[float, float]:
    """Return a decoder's accuracy at saying the label, no label used: raw, and cut at the unlabelled median."""
    assert client.answer is not None
    score = (test @ client.answer).numpy()
    cut = float((pool @ client.answer).median())
    return float(((score > 0) == labels).mean()), float(((score > cut) == labels).mean())
