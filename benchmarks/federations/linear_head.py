"""A yardstick without adapters: logistic regression on frozen features, by itself and on all labels of equal tasks.

    python benchmarks/federations/linear_head.py related --labels 32 --seeds 5

Prints accuracy on test texts in percent, mean over seeds, and how far h2tune is above it, paired by seed, in the runs
that `results` keeps. Features are the means over tokens of an encoder's states, or the last state of a decoder,
standardised by the client's own training texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from kept_runs import KeptRuns
from torch import Tensor

from h2tune.config import load
from h2tune.evaluation.statistics import mean_interval
from h2tune.federation.local_client import LocalClient
from h2tune.federation.local_engine import BaseModels
from h2tune.quiet import quiet
from h2tune.runs.plan import planned, pooled
from h2tune.training.linear_head import head_scores, standardise
from h2tune.training.readings import read_rows

HERE = Path(__file__).resolve().parent


def accuracy(client: LocalClient, models: BaseModels) -> float:
    """Return the accuracy of a head on a client's scored examples."""
    base, tokenizer = models.get(client.enrolment.model, client.kind, "float32")
    features: list[Tensor] = []
    for split in ("train", "scored"):
        rows = client.encoded(split, tokenizer)
        features.append(read_rows(base, tokenizer, rows, causal=client.causal, modules={}, batch_size=32)[0])
    train, scored = (standardise(part, features[0]) for part in features)
    labels = [torch.tensor([e.label for e in part]) for part in (client.splits.train, client.scored)]
    answers = head_scores(train, labels[0], len(client.task.labels), scored).argmax(1)
    return float((answers == labels[1]).float().mean())


def main() -> None:
    """Print a table of clients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation")
    parser.add_argument("--labels", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    table: dict[str, list[list[float]]] = {}
    for seed in range(500, 500 + options.seeds):
        file = HERE / f"{options.federation}.toml"
        clients = planned(load(file, [f"seed={seed}", f"data.train={options.labels}"])).clients
        with quiet():
            models = BaseModels(seed)
            for one, all_labels in zip(clients, pooled(clients), strict=True):
                pair = [accuracy(one, models), accuracy(all_labels, models)]
                table.setdefault(one.name, []).append(pair)
        values = torch.tensor([rows[-1] for rows in table.values()]).mean(0) * 100
        print(f"seed {seed}: own labels {values[0]:.1f}, all labels {values[1]:.1f}", flush=True)
    means = {name: torch.tensor(rows).mean(0) * 100 for name, rows in table.items()}
    means["mean"] = torch.stack(list(means.values())).mean(0)
    print("| client | own labels | all labels |\n|---|---|---|")
    for name, (own, everyone) in means.items():
        print(f"| {name} | {own:.1f} | {everyone:.1f} |")
    compare(table, HERE / "results" / f"{options.federation}-{options.labels}.runs.csv")


def compare(table: dict[str, list[list[float]]], kept: Path) -> None:
    """Print h2tune − head on own labels, in points, mean over clients, with its 95 % t interval over seeds."""
    runs = KeptRuns(kept).results("h2tune")
    count = len(next(iter(table.values())))
    more = [
        100
        * sum(runs[seed].clients[name].accuracy - rows[seed - 500][0] for name, rows in table.items())
        / len(table)
        for seed in range(500, 500 + count)
        if seed in runs
    ]
    if len(more) < 2:
        print(f"{kept.name} has {len(more)} of these seeds with h2tune: no interval")
        return
    found = mean_interval(more)
    print(
        f"h2tune − head on own labels, {len(more)} seeds: {found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
    )


if __name__ == "__main__":
    main()
