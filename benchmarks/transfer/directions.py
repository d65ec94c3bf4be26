"""T of one direction in the last block: what a data-rich source knows of its labels, given untrained to a target.

    python benchmarks/transfer/directions.py --split chosen_by --runs 2 --scales 1.5 2 3    # choose the scale
    python benchmarks/transfer/directions.py --split fresh --scales 1.5 3                   # report

Two ways to such a T (k, k), of norm 1 in each module:

    classifier   T = w wᵀ / ‖w‖²     w: a logistic regression of the source's labels on its texts' common coordinates
    gradient     T = −∂L/∂T / ‖·‖    L: the cross-entropy of that regression after the last block, at T = 0, all texts

Beside zero, −T, a random direction and the identity of the same norm there is `own`: w wᵀ of the few labels that the
target's probe sees, which is what a target can do without a source. Rows are appended to OUT/directions.csv; what is
there is not computed again.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import command
import numpy as np
import torch
from anchored import few
from clients import ASSETS, ROLES, load_texts
from pairs import coordinates, drawn
from sklearn.linear_model import LogisticRegression
from table import COLUMNS, KEYS, append, read_rows
from tail import Middle, Tail
from torch import Tensor, nn

KINDS = ("classifier", "gradient")
Find = Callable[[], dict[str, float]]


def regression(z: Tensor, labels: np.ndarray) -> tuple[Tensor, float]:
    """Return w (k,) and b of a logistic regression of labels on common coordinates."""
    fitted = LogisticRegression(C=0.1, max_iter=500).fit(z.numpy(), labels)
    return torch.tensor(fitted.coef_[0], dtype=torch.float32), float(fitted.intercept_[0])


def along(w: Tensor) -> Middle:
    """Return w wᵀ / ‖w‖² for every role."""
    w = w / w.norm()
    return dict.fromkeys(ROLES, torch.outer(w, w))


def middles_of(tail: Tail, run: int) -> dict[str, Middle]:
    """Return the T of each kind for one run's labels of a source."""
    labels = tail.texts.labels("source")
    rows = drawn(len(labels), run)
    w, b = regression(tail.unchanged("source")[rows], labels[rows])
    middles = {role: torch.zeros(len(w), len(w), requires_grad=True) for role in ROLES}
    for part in np.array_split(rows, len(rows) // 100):  # the gradient is a sum over texts
        logits = tail.coordinates(tail.features("source", middles, 1.0, part)) @ w + b
        target = torch.tensor(labels[part], dtype=torch.float32)
        nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum").backward()
    return {
        "classifier": along(w),
        "gradient": {role: -t.grad / t.grad.norm() for role, t in middles.items()},
    }


def conditions(middle: Middle, scale: float, run: int) -> dict[str, tuple[Middle, float]]:
    """Return what is given to a target; all of norm `scale` in each module."""
    k = len(next(iter(middle.values())))
    drawn = along(torch.randn(k, generator=torch.Generator().manual_seed(run)))
    alike = dict.fromkeys(ROLES, torch.eye(k) / k**0.5)
    return {
        "T": (middle, scale),
        "-T": (middle, -scale),
        "random": (drawn, scale),
        "identity": (alike, scale),
    }


def own(tail: Tail, scale: float, split: str, run: int) -> dict[str, float]:
    """Return the accuracies with T made of the target's few labels, mean over the probe's draws of them."""
    labels, z = tail.texts.labels("pool"), tail.unchanged("pool")
    found = [
        tail.measure(along(regression(z[rows], labels[rows])[0]), scale, split, run, only=n)
        for n, rows in enumerate(few(labels, seed=run))
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def wanted(args: argparse.Namespace, tails: dict[str, Tail]) -> Iterator[tuple[tuple[str, ...], Find]]:
    """Yield the keys of every row, and what finds its accuracies: a T is made when the first row asks for it."""
    made = lru_cache(None)(lambda source, run: middles_of(tails[source], run))
    split, names = args.split, ("T", "-T", "random", "identity") if args.split == "fresh" else ("T", "-T")

    def given(source: str, target: str, kind: str, name: str, scale: float, run: int) -> dict[str, float]:
        middle, signed = conditions(made(source, run)[kind], scale, run)[name]
        return tails[target].measure(middle, signed, split, run)

    for target, run in itertools.product(tails, range(args.runs)):
        tail = tails[target]
        yield ("-", target, split, str(run), "0", "0", "zero"), partial(tail.measure, {}, 0.0, split, run)
        for scale in args.scales:
            at = (split, str(run), f"{scale:g}")
            if split == "fresh":
                yield (target, target, *at, "own", "T"), partial(own, tail, scale, split, run)
            others = (name for name in tails if name != target)
            for source, kind, name in itertools.product(others, KINDS, names):
                find = partial(given, source, target, kind, name, scale, run)
                yield (source, target, *at, kind, name), find


def evaluate(args: argparse.Namespace) -> None:
    """Append the rows that are missing."""
    texts = load_texts()
    z = coordinates(texts, args.cache, args.k)
    path = args.out / "directions.csv"
    done = {tuple(row[c] for c in COLUMNS[:KEYS]) for row in read_rows(path)}
    for keys, find in wanted(args, {name: Tail(name, texts, z, args.cache) for name in ASSETS}):
        if keys not in done:
            append(path, keys, find())


def main() -> None:
    """Read the command line."""
    args = command.begin(command.parser(__doc__, ("chosen_by", "fresh"), scale=1.5))
    evaluate(args)
    command.conclude(args, "directions", "T of")


if __name__ == "__main__":
    main()
