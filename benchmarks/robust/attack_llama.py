"""Which rules tolerate hostile clients where the mean does not? Ten clients, three of them hostile; see README.md."""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import llama

from h2tune.federation.rounds import Schedule, draw_from, run_rounds
from h2tune.federation.run_store import RunStore

RULES = ("mean", "clip", "median", "trimmed_mean", "nnm", "krum")
HERE = Path(__file__).parent
Found = tuple[float, float]
"""Accuracy of G as it is, and mean accuracy of the honest clients after their last local steps; in points."""


def measure(args: argparse.Namespace, rule: str, attack: str, seed: int) -> Found:
    """Run a federation through h2tune's round loop."""
    strategy, channel = llama.build(
        clients=args.clients, hostile=args.hostile, rule=rule, attack=attack, seed=seed, steps=args.steps,
        batch=args.batch, rate=args.rate, rows=args.rows, rounds=args.rounds, scale=args.scale,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "run")
        try:
            choose = draw_from(1.0, args.clients, seed)
            schedule = Schedule(args.rounds, args.clients, choose)
            state = run_rounds(strategy, channel, store, schedule)
        finally:
            store.close()
    return channel.shared_accuracy(state), statistics.mean(channel.scores)


def table(done: dict[tuple[str, str, int], Found], args: argparse.Namespace, which: int) -> str:
    """Return a Markdown table: mean over seeds, and the least of them."""
    lines = ["| attack | " + " | ".join(args.rules) + " |", "|---|" + "---|" * len(args.rules)]
    for attack in args.attacks:
        cells = [[done[rule, attack, seed][which] for seed in args.seeds] for rule in args.rules]
        lines.append(
            f"| {attack} | " + " | ".join(f"{statistics.mean(c):.1f} ({min(c):.1f})" for c in cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--hostile", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--attacks", nargs="+", default=["none", *llama.ATTACKS])
    parser.add_argument("--out", type=Path, default=HERE / "attack-llama.csv")
    args = parser.parse_args()
    done: dict[tuple[str, str, int], Found] = {}
    if args.out.exists():  # resume
        with args.out.open() as file:
            for row in csv.DictReader(file):
                key = row["rule"], row["attack"], int(row["seed"])
                done[key] = float(row["shared"]), float(row["members"])
    for seed in args.seeds:
        for attack in args.attacks:
            for rule in args.rules:
                if (rule, attack, seed) in done:
                    continue
                done[rule, attack, seed] = shared, own = measure(args, rule, attack, seed)
                print(f"seed {seed}  {attack:<10} {rule:<13} {shared:5.1f} {own:5.1f}", flush=True)
                fresh = not args.out.exists()
                with args.out.open("a") as file:
                    file.write("rule,attack,seed,shared,members\n" * fresh)
                    file.write(f"{rule},{attack},{seed},{shared:.2f},{own:.2f}\n")
    print("\nG as it is, mean over seeds (least)\n\n" + table(done, args, 0))
    print("\nHonest members after their last local steps\n\n" + table(done, args, 1))


if __name__ == "__main__":
    main()
