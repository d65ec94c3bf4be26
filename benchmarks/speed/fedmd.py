"""h2tune beside FedMD on the same public texts: bytes of a client, and processor seconds of the whole command.

    OMP_NUM_THREADS=1 python benchmarks/speed/fedmd.py

The six encoders of `benchmarks/federations/one-task.toml` with 32 labels each: both read 1,600 public texts, exchange
what they know of them once, and train for 40 steps of 8 own and 8 public texts. Nothing was read before.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import Spread, in_turn, ratios, table

from h2tune.assets import cache_folder
from h2tune.compare.results import read_result
from h2tune.events import read_events

FILE = Path(__file__).resolve().parents[1] / "federations/one-task.toml"
METHODS = ("fedmd", "h2tune")


class Runs:
    """Runs of one federation with one method or another.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.sent: dict[str, tuple[int, int]] = {}

    def measure(self, method: str) -> float:
        """Run once, without readings kept from before, and return the processor seconds."""
        self.count += 1
        cache, out = self.folder / f"cache-{self.count}", self.folder / f"run-{self.count}"
        cache.mkdir()
        for asset in cache_folder().iterdir():
            if asset.name != "readings":
                (cache / asset.name).symlink_to(asset)
        command = [sys.executable, "-m", "h2tune", "run", str(FILE), "--out", str(out)]
        command += ["--set", f"server.strategy={method}", "--set", "data.test=8"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "H2TUNE_CACHE": str(cache)}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        clients = read_result(read_events(out / "events.jsonl"), "trained").clients.values()
        self.sent[method] = max(c.bytes_up for c in clients), max(c.bytes_down for c in clients)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        found = in_turn({m: lambda m=m: runs.measure(m) for m in METHODS}, options.repeats)
    rows = [
        (m, *runs.sent[m], Spread.of(found[m]).text(1), ratios(found, m, METHODS[0]).text()) for m in METHODS
    ]
    print(table(("method", "bytes sent", "bytes received", "processor seconds", "× FedMD"), rows))


if __name__ == "__main__":
    main()
