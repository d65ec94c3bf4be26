"""The server's part of the exchange, equation (13), as clients grow: seconds, and memory of a process of its own.

    OMP_NUM_THREADS=1 python benchmarks/speed/relevance.py [--clients 10 100 1000 10000] [--repeats 5]

Every client sends R × C = 64 × 2 values; a third of each is common, the rest random. Processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import torch
from timing import Spread, in_process, memory, table

from h2tune.federation.teaching.knowledge import KNOWLEDGE

SIZE, CLASSES, COMMON = 64, 2, 0.33


def uploads(clients: int) -> list[dict[str, torch.Tensor]]:
    """Return what clients send: directions of unit norm that have something in common."""
    draw = torch.Generator().manual_seed(0)
    common = torch.randn(SIZE, generator=draw) / math.sqrt(SIZE)
    found = []
    for _ in range(clients):
        own = torch.randn(SIZE, generator=draw) / math.sqrt(SIZE)
        half = COMMON**0.5 * common + (1 - COMMON) ** 0.5 * own
        both = torch.stack([half, -half], dim=1)
        found.append({"direction": both / both.norm()})
    return found


def measure(clients: int) -> tuple[float, float]:
    """Return seconds of processor time, and the memory in MB by which this process grew."""
    sent = uploads(clients)
    knowledge = KNOWLEDGE["directions"]
    knowledge.combine(sent[:10])
    before, start = memory("VmRSS"), time.process_time()
    knowledge.combine(sent)
    return time.process_time() - start, memory() - before


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for clients in options.clients:
        values = [in_process(measure, clients) for _ in range(options.repeats)]
        seconds = Spread.of([value[0] for value in values])
        most = Spread.of([value[1] for value in values])
        print(json.dumps({"clients": clients, "seconds and MB": values}), flush=True)
        per_pair = seconds.median / clients**2 * 1e9
        rows.append([f"{clients:,}", seconds.text(), f"{per_pair:.0f}", most.text(0)])
    print(table(["clients", "s", "ns per pair of clients", "memory, MB"], rows))


if __name__ == "__main__":
    main()
