"""Does it cost accuracy that own and public texts go through the model together? Five small clients of `related`.

    python benchmarks/federations/one_pass.py [--seeds 4]

Each step takes the gradient of the same loss of the same rows. They go through the model short and long ones apart, as
on a CPU, in one batch, as on a GPU, or own and public ones apart. Validation texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from h2tune.compare import compare
from h2tune.config import Stated
from h2tune.evaluation.statistics import differences, mean_interval
from h2tune.training import trainer
from h2tune.training.by_length import logits_by_length
from h2tune.training.encode import kept_logits

HERE = Path(__file__).resolve().parent
SMALL = ("-l3", "-tiny")
FIRST = 601


def apart(model: Any, batch: dict[str, Tensor], *, causal: bool) -> Tensor:
    """Return the logits of a batch, own rows and public ones through the model one after the other."""
    public = batch["targets"].sum(1) > 0
    rows = torch.cat([(~public).nonzero()[:, 0], public.nonzero()[:, 0]])
    parts = [
        kept_logits(model, {name: t[part] for name, t in batch.items()}, causal=causal)
        for part in (~public, public)
        if part.any()
    ]
    return torch.cat(parts)[rows.argsort()]


WAYS: dict[str, Callable[..., Tensor]] = {
    "short and long rows apart": logits_by_length,
    "one batch": kept_logits,
    "own and public texts apart": apart,
}


def main() -> None:
    """Train with each way, and print accuracy by seed, and differences to the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--runs", type=Path, default=Path("runs/one-pass"))
    options = parser.parse_args()
    whole = Stated.read(HERE / "related.toml")
    clients = [client for client in whole.raw["client"] if client["name"].endswith(SMALL)]
    server = {**whole.raw["server"], "min_clients": len(clients)}
    small = {**whole.raw, "client": clients, "server": server, "seed": FIRST}
    federation = Stated(small, whole.where, whole.folder)
    found: dict[str, list[float]] = {}
    for way, forward in WAYS.items():
        with mock.patch.object(trainer, "logits_by_length", forward):
            out = options.runs / way.replace(" ", "-")
            runs = compare(federation, ["h2tune"], seeds=options.seeds, out=out, split="validation")
        found[way] = [
            100 * fmean(c.accuracy for c in result.clients.values())
            for _, result in sorted(runs.results["h2tune"].items())
        ]
    print("| rows go through the model | accuracy by seed | mean | difference |\n|---|---|---|---|")
    last = found["own and public texts apart"]
    for way, values in found.items():
        seeds, by = ", ".join(f"{value:.1f}" for value in values), mean_interval(differences(values, last))
        shown = f"{by.mean:+.1f} [{by.low:+.1f}, {by.high:+.1f}]"
        print(f"| {way} | {seeds} | {fmean(values):.1f} | {shown} |")


if __name__ == "__main__":
    main()
