"""T of one direction in the last block: what a data-rich source knows of its labels, given untrained to a target.

    python benchmarks/transfer/directions.py --split chosen_by --scales 1 1.5 2 3 4    # choose the scale
    python benchmarks/transfer/directions.py --split fresh --scales 2                  # report

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
from functools import partial
from pathlib import Path

import numpy as np
import torch
from anchored import few, probe, verbaliser
from members import ASSETS, ROLES, load_texts
from pairs import LABELS, coordinates
from sklearn.linear_model import LogisticRegression
from table import COLUMNS, KEYS, append, read_rows, summary
from tail import Middle, Tail, draws
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


def middle_of(tail: Tail, kind: str, run: int) -> Middle:
    """Return the T that a source makes of one run's labels."""
    labels = tail.texts.labels("source")
    rows = draws(len(labels), LABELS, run)
    with torch.no_grad():
        z = tail.coordinates(tail.features("source", {}, 0.0, rows))
    w, b = regression(z, labels[rows])
    if kind == "classifier":
        return along(w)
    middles = {role: torch.zeros(len(w), len(w), requires_grad=True) for role in ROLES}
    for part in np.array_split(rows, len(rows) // 100):  # the gradient is a sum over texts
        logits = tail.coordinates(tail.features("source", middles, 1.0, part)) @ w + b
        target = torch.tensor(labels[part], dtype=torch.float32)
        nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum").backward()
    return {role: -t.grad / t.grad.norm() for role, t in middles.items()}


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


@torch.no_grad()
def own(tail: Tail, scale: float, split: str, run: int) -> dict[str, float]:
    """Return the accuracies with T made of the target's few labels, mean over the probe's draws of them."""
    labels, at_test = tail.texts.labels("pool"), tail.texts.labels(split)
    z = tail.coordinates(tail.features("pool", {}, 0.0))
    found: dict[str, list[float]] = {}
    for n, rows in enumerate(few(labels, seed=run)):
        middle = along(regression(z[rows], labels[rows])[0])
        pool, test = (tail.features(s, middle, scale) for s in ("pool", split))
        found.setdefault("probe", []).append(probe(pool, labels, test, at_test, seed=run, only=n))
        if tail.member.answer is not None:
            for name, value in zip(
                ("said", "said_calibrated"), verbaliser(tail.member, pool, test, at_test), strict=True
            ):
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def wanted(args: argparse.Namespace, tails: dict[str, Tail]) -> Iterator[tuple[tuple[str, ...], Find]]:
    """Yield the keys of every row, and what finds its accuracies."""
    made = {(n, k, r): middle_of(t, k, r) for n, t in tails.items() for k in KINDS for r in range(args.runs)}
    split = args.split
    for target, run in itertools.product(tails, range(args.runs)):
        tail = tails[target]
        yield ("-", target, split, str(run), "0", "0", "zero"), partial(tail.measure, {}, 0.0, split, run)
        for scale in args.scales:
            at = (split, str(run), f"{scale:g}")
            if split == "fresh":
                yield (target, target, *at, "own", "T"), partial(own, tail, scale, split, run)
            for source, kind in itertools.product((n for n in tails if n != target), KINDS):
                given = conditions(made[source, kind, run], scale, run)
                for name in given if split == "fresh" else ("T", "-T"):
                    find = partial(tail.measure, *given[name], split, run)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="chosen_by", choices=("chosen_by", "fresh"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0])
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path("transfer-cache"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    evaluate(args)
    table = summary(read_rows(args.out / "directions.csv"), args.split, "T of")
    (args.out / f"directions-{args.split}.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
