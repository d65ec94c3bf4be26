"""Real pairs: T trained on a data-rich source, given untrained to a data-poor target of another family.

    python benchmarks/transfer/pairs.py --split validation --runs 1 --scales 1 2 4 8    # choose the scale
    python benchmarks/transfer/pairs.py --split test --runs 5 --scales 4                # report

A run draws its own 2,000 of the source's labels, order of training, few target labels and random matrix.
Rows are appended to OUT/pairs.csv; what is there already is not computed again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import command
import numpy as np
import torch
from anchored import (
    Frame,
    Key,
    Middles,
    anchored_frames,
    carrying,
    common_coordinates,
    probe,
    random_middles,
    train_middles,
    truncated,
    verbaliser,
    view_basis,
)
from clients import ASSETS, Client, States, Texts, load_texts
from safetensors.torch import load_file, save
from table import COLUMNS, KEYS, append, read_rows

from h2tune.files import write_bytes

LABELS = 2000  # of the source in a run


def drawn(count: int, run: int) -> np.ndarray:
    """Return which of the source's texts a run sees."""
    return np.random.default_rng(run).choice(count, LABELS, replace=False)


def public_features(name: str, texts: Texts, cache: Path) -> dict[str, torch.Tensor]:
    """Return a client's pooled features on the public sentences; computed once."""
    path = cache / f"public-{name}.safetensors"
    if not path.exists():
        client = Client(name)
        features = client.public_features(client.prepare(texts.public))
        write_bytes(path, save(features))
    return load_file(path)


def coordinates(texts: Texts, cache: Path, k: int) -> torch.Tensor:
    """Return the common coordinates of all three clients on the public sentences, (n, k)."""
    bases = []
    for name in ASSETS:
        public = public_features(name, texts, cache)
        bases += [view_basis(value) for key, value in public.items() if key.startswith("final/")]
    return common_coordinates(bases, k)


def frames_of(name: str, texts: Texts, z: torch.Tensor, cache: Path) -> dict[Key, Frame]:
    """Return a client's frames; computed once."""
    path = cache / f"frames-{name}-{z.shape[1]}.safetensors"
    if not path.exists():
        frames = anchored_frames(public_features(name, texts, cache), z)
        write_bytes(
            path,
            save({f"{s}/{r}/{end}": t for (s, r), f in frames.items() for end, t in f._asdict().items()}),
        )
    found: dict[Key, dict[str, torch.Tensor]] = {}
    for key, value in load_file(path).items():
        slot, role, end = key.split("/")
        found.setdefault((int(slot), role), {})[end] = value
    return {key: Frame(**ends) for key, ends in found.items()}


class Site:
    """A client with its prepared texts and frames."""

    def __init__(self, name: str, texts: Texts, z: torch.Tensor, cache: Path) -> None:
        self.name, self.texts, self.cache = name, texts, cache
        self.frames = frames_of(name, texts, z, cache)
        self.client = Client(name)
        self.prepared: dict[str, States] = {}
        self.unchanged: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # features without T

    def states(self, split: str) -> States:
        """Return a split's prepared states."""
        if split not in self.prepared:
            self.prepared[split] = self.client.prepare([e.text for e in self.texts.labelled[split]])
        return self.prepared[split]

    def middles(self, run: int) -> Middles:
        """Return T trained on this client with the labels of one run; trained once."""
        path = self.cache / f"middle-{self.name}-{run}.safetensors"
        if not path.exists():
            states, labels = self.states("source"), self.texts.labels("source")
            rows = drawn(len(states), run)
            began = time.perf_counter()
            trained = train_middles(
                self.client, self.frames, [states[i] for i in rows], labels[rows], seed=run
            )
            print(f"trained {self.name} run {run}: {time.perf_counter() - began:.0f} s", flush=True)
            write_bytes(path, save({f"{slot}/{role}": t for (slot, role), t in trained.items()}))
        return {(int(n.split("/")[0]), n.split("/")[1]): t for n, t in load_file(path).items()}

    def measure(self, middles: Middles, scale: float, split: str, run: int) -> dict[str, float]:
        """Return the accuracies with s · T: probe on few labels, and those of a decoder's own words."""
        if scale == 0 and split in self.unchanged:
            pool, test = self.unchanged[split]
        else:
            with carrying(self.client, self.frames, middles, scale):
                pool = self.client.features(self.states("pool"))
                test = self.client.features(self.states(split))
        if scale == 0:
            self.unchanged[split] = pool, test
        labels = self.texts.labels(split)
        found = {"probe": probe(pool, self.texts.labels("pool"), test, labels, seed=run)}
        if not self.client.encoder:
            found["said"], found["said_calibrated"] = verbaliser(self.client, pool, test, labels)
        return found


def conditions(full: Middles, scale: float, rank: int, run: int) -> dict[str, tuple[Middles, float]]:
    """Return what is given to a target; all have T's norm in every module."""
    middles = {key: truncated(t, rank) for key, t in full.items()}
    drawn = {key: truncated(t, rank) for key, t in random_middles(full, seed=run).items()}
    alike = {key: torch.eye(len(t)) for key, t in full.items()}  # stresses all that the models have in common
    drawn, alike = (
        {k: v * (middles[k].norm() / v.norm()) for k, v in others.items()} for others in (drawn, alike)
    )
    return {
        "T": (middles, scale),
        "-T": (middles, -scale),
        "random": (drawn, scale),
        "identity": (alike, scale),
    }


def evaluate(args: argparse.Namespace) -> None:
    """Train what is missing, and append the rows that are missing."""
    texts = load_texts()
    z = coordinates(texts, args.cache, args.k)
    path = args.out / "pairs.csv"
    rows = read_rows(path)
    done = {tuple(row[c] for c in COLUMNS[:KEYS]) for row in rows}
    trained: dict[tuple[str, int], Middles] = {}
    for name in args.sources:
        site = Site(name, texts, z, args.cache)
        trained |= {(name, run): site.middles(run) for run in range(args.runs)}
    for target in args.targets:
        site = Site(target, texts, z, args.cache)
        for run in range(args.runs):
            wanted = [("-", "zero", 0.0, trained[args.sources[0], run], 0.0)]
            for source in args.sources:
                middles = trained[source, run]
                if source == target and args.split == "test":
                    continue
                for scale in args.scales if source != target else [1.0]:
                    given = conditions(middles, scale, args.rank, run)
                    if args.split == "validation":  # to choose the scale; what the source itself gains
                        given = {"T": given["T"]}
                    wanted += [(source, name, scale, t, s) for name, (t, s) in given.items()]
            for source, name, scale, middles, signed in wanted:
                row = (
                    source,
                    target,
                    args.split,
                    str(run),
                    f"{scale:g}",
                    str(args.rank if source != "-" else 0),
                    name,
                )
                if row not in done:
                    append(path, row, site.measure(middles, signed, args.split, run))


def main() -> None:
    """Read the command line."""
    parser = command.parser(__doc__, ("validation", "test"), scale=4.0)
    parser.add_argument("--sources", nargs="+", default=list(ASSETS), choices=ASSETS)
    parser.add_argument("--targets", nargs="*", default=list(ASSETS), choices=ASSETS)
    parser.add_argument("--rank", type=int, default=64, help="singular directions of T that are kept")
    args = command.begin(parser)
    evaluate(args)
    command.conclude(args, "pairs", "rank")


if __name__ == "__main__":
    main()
