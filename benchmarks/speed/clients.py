"""Many clients over three base models on one machine: memory, disk and seconds against their number.

    python benchmarks/speed/clients.py [--clients 10 100 1000]

Real runs of two rounds with one step each, through the same code as `h2tune run`, export and report included, each in a
process of its own; the models are tiny (Llama, BERT, GPT-NeoX) and every client has 16 examples.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import table

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
FAMILIES = ("llama", "bert", "gpt_neox")


def measure(count: int, queue) -> None:
    """Put what a run with so many clients took."""
    import federations
    import tomli_w

    import h2tune

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clients = [(f"c{i:05d}", FAMILIES[i % 3], (2, 4, 8)[i % 3]) for i in range(count)]
        content = federations.federation(
            folder,
            clients,
            server={"rounds": 2, "min_clients": count, "alone": False},
            train={"local_steps": 1, "batch_size": 8},
            data={"train": 16, "validation": 0, "test": 8, "evaluate_rounds": "last"},
        )
        file = folder / "many.toml"
        file.write_text(tomli_w.dumps(content))
        before, start = _peak(), time.perf_counter()
        run = h2tune.run(file, out=folder / "run")
        took = time.perf_counter() - start
        kept = [p for p in (run.folder / "clients").rglob("*.safetensors") if "/state/" in p.as_posix()]
        disk = sum(p.stat().st_size for p in kept) / count / 1e3
        queue.put((_peak(), _peak() - before, took, disk))


def _peak() -> float:
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def exponent(counts: list[int], values: list[float]) -> float:
    """Return the slope of log values against log counts."""
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    counts = parser.parse_args().clients
    rows, values = [], []
    for count in counts:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=measure, args=(count, queue))
        process.start()
        peak, grew, took, disk = queue.get(timeout=7200)
        process.join()
        values.append((grew, took))
        rows.append(
            [
                count,
                f"{peak:.0f}",
                f"{grew:.0f}",
                f"{took:.1f}",
                f"{1000 * took / count / 2:.0f}",
                f"{disk:.0f}",
            ]
        )
        print(json.dumps(rows[-1]), flush=True)
    print(
        table(
            [
                "clients",
                "peak memory, MB",
                "of it in the run, MB",
                "s",
                "ms per client and round",
                "state on disk per client, kB",
            ],
            rows,
        )
    )
    if len(counts) > 1:
        print("exponents: memory in the run", round(exponent(counts, [v[0] for v in values]), 2),
              "· seconds", round(exponent(counts, [v[1] for v in values]), 2))  # fmt: skip


if __name__ == "__main__":
    main()
