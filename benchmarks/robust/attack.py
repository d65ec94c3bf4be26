"""Which rules tolerate hostile clients where the mean does not? Ten clients, three of them hostile; see README.md."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import NAME, H2Tune
from h2tune.federation.messages import Enrolment, Update, check_update
from h2tune.federation.strategy import decoded
from h2tune.seeds import generator

CLIENTS, HOSTILE, SIZE, WIDTH, CLASSES, ROWS, STEPS, RATE = 10, 3, 16, 64, 10, 256, 5, 2.0
RULES = ("mean", "clip", "median", "trimmed_mean", "nnm", "krum")
Attack = Callable[[Tensor, Sequence[Tensor], torch.Generator], Tensor]
"""Own ΔT of a hostile client, those of the honest clients of its rank, a generator → what it sends."""

ATTACKS: dict[str, Attack] = {
    "none": lambda own, honest, draw: own,
    # ten times the standard deviation of its own increments
    "noise": lambda own, honest, draw: 10 * own.std() * torch.randn(own.shape, generator=draw),
    "flip": lambda own, honest, draw: -own,
    "scaled": lambda own, honest, draw: -10 * own,
    # "a little is enough" (Baruch et al. 2019, arXiv 1902.06156): all send the same, 1.5 standard deviations off
    "colluding": lambda own, honest, draw: (
        _mean(honest) - 1.5 * _mean(honest).sign() * torch.stack(list(honest)).std(0)
    ),
    # inner-product manipulation (Xie et al. 2020, arXiv 1903.03936): all send the same, the other way
    "opposing": lambda own, honest, draw: -4 * _mean(honest),
}


def _mean(some: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(some)).mean(0)


def measure(rule: str, attack: str, seed: int, args: argparse.Namespace) -> float:
    """Return the test accuracy of G after the last round, in points.

    The first `args.low` clients have rank 8, the others 16; the last three are hostile.
    """
    ranks = [SIZE // 2] * args.low + [SIZE] * (CLIENTS - args.low)
    up, features, labels, test = _data(seed, args.shift)
    names = [f"member-{i}" for i in range(CLIENTS)]
    enrolments = [
        Enrolment(name, "linear", 1, rank, ROWS, {"attn.q": (0,)}, {})
        for name, rank in zip(names, ranks, strict=True)
    ]
    settings = H2TuneSettings(
        shared_rank=SIZE, slots=1, mask="leading", alignment="depth", aggregation=rule,
        hostile=0 if rule == "mean" else HOSTILE,
    )  # fmt: skip
    strategy = H2Tune(enrolments, settings)
    kept = torch.stack([_leading(rank) for rank in ranks])
    state = strategy.start()
    for number in range(args.rounds):
        start = state[NAME][0, 0]
        middles = start * kept
        for step in range(STEPS):
            some = torch.randint(
                ROWS, (CLIENTS, args.batch), generator=generator(seed, "batch", number, step)
            )
            x = features.gather(1, some[..., None].expand(-1, -1, SIZE))
            y = torch.nn.functional.one_hot(labels.gather(1, some), CLASSES)
            wrong = (x @ middles.mT @ up.T).softmax(-1) - y
            middles = middles - RATE * kept * (up.T @ wrong.mT @ x) / x.shape[1]
        learned = [(m - start * k)[:rank, :rank] for m, k, rank in zip(middles, kept, ranks, strict=True)]
        honest = [t for t, rank in zip(learned[:-HOSTILE], ranks, strict=False) if rank == SIZE]
        updates = []
        for i, name in enumerate(names):
            draw, sent = generator(seed, attack, name, number), learned[i]
            if i >= CLIENTS - HOSTILE:
                sent = ATTACKS[attack](sent, honest, draw)
            update = Update(name, number, ROWS, {"delta.attn.q": sent[None].contiguous()})
            spec = strategy.upload_spec(name, number)
            check_update(update, spec, client=name, round_number=number, examples=ROWS)
            updates.append(decoded(strategy, update))
        state, _ = strategy.aggregate(state, updates)
    said = (test[0] @ state[NAME][0, 0].T @ up.T).argmax(-1)
    return 100 * float((said == test[1]).float().mean())


def _leading(rank: int) -> Tensor:
    kept = torch.zeros(SIZE, SIZE)
    kept[:rank, :rank] = 1
    return kept


def _data(seed: int, shift: float) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return B, features A x and labels by client, and a test set. Labels are a noisy teacher's of rank 64.

    Clients' inputs differ: each has a mean of its own.
    """
    draw = generator(seed, "data")
    down = torch.linalg.qr(torch.randn(WIDTH, SIZE, generator=draw))[0].T
    up = torch.linalg.qr(torch.randn(SIZE, CLASSES, generator=draw))[0].T
    teacher = up @ torch.randn(SIZE, SIZE, generator=draw) @ down
    teacher = teacher + 0.1 * torch.randn(CLASSES, WIDTH, generator=draw)

    def rows(count: int, mean: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, WIDTH, generator=draw) + mean
        noise = 0.5 * torch.randn(count, CLASSES, generator=draw)
        return x @ down.T, (x @ teacher.T + noise).argmax(-1)

    members = [rows(ROWS, shift * torch.randn(WIDTH, generator=draw)) for _ in range(CLIENTS)]
    features, labels = (torch.stack(list(part)) for part in zip(*members, strict=True))
    return up, features, labels, rows(4000, torch.zeros(WIDTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--batch", type=int, default=32, help="rows of a local step; 256 are all a member has"
    )
    parser.add_argument(
        "--shift", type=float, default=0.3, help="how far the means of members' inputs differ"
    )
    parser.add_argument("--low", type=int, default=3, help="members of rank 8 instead of 16; none is hostile")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    args = parser.parse_args()
    print("| attack | " + " | ".join(RULES) + " |\n|---|" + "---|" * len(RULES))
    for attack in args.attacks:
        cells = []
        for rule in RULES:
            found = [measure(rule, attack, seed, args) for seed in args.seeds]
            cells.append(f"{statistics.mean(found):.1f} ({min(found):.1f})")
        print(f"| {attack} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
