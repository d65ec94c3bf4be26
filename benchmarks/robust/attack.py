"""Do robust rules bear hostile members where the mean does not? Ten members, three of them hostile; see README.md."""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

import members

from h2tune.config import parse
from h2tune.federation import run as running

RULES = ("mean", "clip", "median", "trimmed_mean", "krum")
HERE = Path(__file__).parent


def accuracy(args: argparse.Namespace, rule: str, attack: str, seed: int) -> float:
    """Run a federation through h2tune's own run; return the mean test accuracy of the honest members, in points."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, hostile = members.federation(
            folder, clients=args.clients, hostile=args.hostile, seed=seed, rounds=args.rounds
        )
        content["server"]["aggregation"] = rule
        if rule != "mean":
            content["server"]["hostile"] = args.hostile
        for change in args.set:
            key, _, value = change.partition("=")
            section, _, last = key.partition(".")
            content[section][last] = float(value) if "." in value or "e" in value else int(value)
        members.Attacked.attack = "" if attack == "none" else attack
        members.Attacked.hostile = hostile
        with mock.patch.object(running, "Embedded", members.Attacked):
            table = running.run(parse(content, "robust"), out=folder / "run").table
    return 100 * statistics.mean(row["federated"] for row in table if row["client"] not in hostile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--hostile", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--attacks", nargs="+", default=["none", *members.ATTACKS])
    parser.add_argument("--set", nargs="*", default=[], help="changes such as train.local_steps=4")
    parser.add_argument("--out", type=Path, default=HERE / "attack.csv")
    args = parser.parse_args()
    done: dict[tuple[str, str, int], float] = {}
    if args.out.exists():  # goes on where it was stopped
        with args.out.open() as file:
            done = {
                (r["rule"], r["attack"], int(r["seed"])): float(r["accuracy"]) for r in csv.DictReader(file)
            }
    for seed in args.seeds:
        for attack in args.attacks:
            for rule in args.rules:
                if (rule, attack, seed) in done:
                    continue
                done[rule, attack, seed] = found = accuracy(args, rule, attack, seed)
                print(f"seed {seed}  {attack:<10} {rule:<13} {found:.1f}", flush=True)
                fresh = not args.out.exists()
                with args.out.open("a") as file:
                    file.write(
                        "rule,attack,seed,accuracy\n" * fresh + f"{rule},{attack},{seed},{found:.2f}\n"
                    )
    print("\n| attack | " + " | ".join(args.rules) + " |\n|---|" + "---|" * len(args.rules))
    for attack in args.attacks:
        cells = [[done[rule, attack, seed] for seed in args.seeds] for rule in args.rules]
        print(f"| {attack} | " + " | ".join(f"{statistics.mean(cell):.1f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
