"""The server's aggregation, equations (4) and (5): time beside a plain in-place add of the same bytes, and memory.

    python benchmarks/speed/server.py [--updates 10 100 1000 10000] [--repeats 5]

D = 32 slots, 7 roles, R = 64, clients of 32 blocks; updates are made as they are needed, so that none is kept.
Memory is what the process grew by at its peak, in units of G.
"""

from __future__ import annotations

import argparse
import functools
import json
import time

import torch
from timing import Spread, in_process, in_turn, memory, ratios, table

from h2tune.federation.h2tune import wire
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.messages import Enrolment, Update
from h2tune.federation.strategy import decoded
from h2tune.functional.masks import choose_mask

DEPTH, SIZE = 32, 64
ROLES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
KINDS = {"dense": 64, "entry": 16, "block": 16, "leading": 16}


@functools.cache
def modules(depth: int) -> dict[str, tuple[int, int]]:
    """Return the modules of a model of this depth; one mapping for all clients, or 100,000 would take 3 GB."""
    return {f"layers.{block}.{role}": (1024, 1024) for block in range(depth) for role in ROLES}


@functools.cache
def blocks(depth: int) -> dict[str, tuple[int, ...]]:
    """Return the blocks that have each role."""
    return {role: tuple(range(depth)) for role in ROLES}


def enrolment(name: str, rank: int, depth: int = DEPTH) -> Enrolment:
    """Return a client of this depth."""
    return Enrolment(name, "any", depth, rank, 100, blocks(depth), modules(depth))


def update(kind: str, rank: int, number: int, depth: int = DEPTH) -> dict[str, torch.Tensor]:
    """Return the tensors of an update: increments, masks where they travel, and no learned relation."""
    rng = torch.Generator().manual_seed(number)
    tensors = {}
    for role in ROLES:
        tensors[f"delta.{role}"] = torch.randn(depth, rank, rank, generator=rng)
        if kind in ("entry", "block") and rank < SIZE:
            index = choose_mask(torch.rand(SIZE, SIZE, generator=rng), rank, kind)
            tensors[f"mask.{role}"] = wire.pack_masks([index] * depth, SIZE)
    return tensors


def strategy(kind: str, clients: int, depth: int = DEPTH) -> H2Tune:
    """Return the strategy."""
    mask = "entry" if kind == "dense" else kind
    enrolments = [enrolment(f"m{i}", KINDS[kind], depth) for i in range(clients)]
    return H2Tune(enrolments, H2TuneSettings(SIZE, depth, mask=mask, alignment="depth"))


def prepared(kind: str, updates: int, depth: int = DEPTH):
    """Return the strategy, its tensors, and this many updates, made of a few that repeat."""
    method = strategy(kind, updates, depth)
    few = [update(kind, KINDS[kind], i, depth) for i in range(min(updates, 4))]
    return method, method.start(), [Update(f"m{i}", 1, 100, few[i % len(few)]) for i in range(updates)]


def aggregate(kind: str, updates: int) -> float:
    """Return the seconds that decoding and aggregating a round's updates takes, from updates in memory."""
    method, state, sent = prepared(kind, updates)
    start = time.perf_counter()
    method.aggregate(state, [decoded(method, update) for update in sent])
    return time.perf_counter() - start


def plain_add(kind: str, updates: int) -> float:
    """Return the seconds of adding as many values as the updates carry, in place."""
    few = [update(kind, KINDS[kind], i) for i in range(min(updates, 4))]
    sums = {name: torch.zeros_like(t) for name, t in few[0].items() if name.startswith("delta")}
    start = time.perf_counter()
    for i in range(updates):
        for name, total in sums.items():
            total.add_(few[i % len(few)][name])
    return time.perf_counter() - start


def growth(kind: str, updates: int) -> float:
    """Return by how much this process grew while it aggregated, in units of G."""
    for depth in (1, DEPTH):  # the first is small: what Python and PyTorch load once is not the aggregation's
        method, state, sent = prepared(kind, updates if depth > 1 else 1, depth)
        if depth == 1:
            method.aggregate(state, [decoded(method, update) for update in sent])
    before = memory("VmRSS")
    method.aggregate(state, [decoded(method, update) for update in sent])
    size = next(iter(state.values())).numel() * 4 / 2**20
    return (memory() - before) / size


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for kind in options.kinds:
        for count in options.updates:
            values = in_turn(
                {
                    "h2tune": lambda k=kind, n=count: aggregate(k, n),
                    "add": lambda k=kind, n=count: plain_add(k, n),
                },
                options.repeats,
            )
            grew = in_process(growth, kind, count)
            each = Spread.of([1000 * v / count for v in values["h2tune"]])
            rows.append(
                [
                    kind,
                    KINDS[kind],
                    count,
                    each.text(2),
                    ratios(values, "add", "h2tune").text(3),
                    f"{grew:.1f}",
                ]
            )
            print(json.dumps({"kind": kind, "updates": count, "row": rows[-1]}), flush=True)
    head = [
        "mask",
        "rank",
        "updates",
        "ms per update",
        "speed, × plain add of the same values",
        "memory, × G",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
