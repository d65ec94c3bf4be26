"""A CSV file of the results of single runs, from which tables are made and to which further seeds are added."""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from h2tune import files
from h2tune.compare import compare
from h2tune.compare.comparison import Comparison
from h2tune.compare.results import ClientResult, RunResult

FIELDS = (
    "method",
    "seed",
    "client",
    "accuracy",
    "bytes_up",
    "bytes_down",
    "seconds",
    "measure",
    "loss",
    "commit",
)


class KeptRuns:
    """The results of runs by method, as written in the command, and seed.

    Args:
        path: The file; read if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[tuple[str, int], dict[str, ClientResult]] = {}
        self.commits: dict[tuple[str, int], str] = {}
        if path.exists():
            for row in csv.DictReader(io.StringIO(path.read_text())):
                key = row["method"], int(row["seed"])
                self.runs.setdefault(key, {})[row["client"]] = ClientResult(
                    float(row["accuracy"]),
                    int(row["bytes_up"]),
                    int(row["bytes_down"]),
                    float(row["seconds"]),
                    row.get("measure") or "",
                    float(row["loss"]) if row.get("loss") else None,
                )
                self.commits[key] = row["commit"]

    def has(self, method: str, seed: int) -> bool:
        """Return whether a run's result is kept."""
        return (method, seed) in self.runs

    def methods(self) -> set[str]:
        """Return the methods with a result."""
        return {method for method, _ in self.runs}

    def results(self, method: str) -> dict[int, RunResult]:
        """Return a method's results by seed."""
        return {seed: RunResult(c) for (m, seed), c in sorted(self.runs.items()) if m == method}

    def run(
        self,
        file: Path,
        methods: Sequence[str],
        seed: int,
        overrides: Sequence[str],
        out: Path,
        split: str = "test",
        as_method: str = "",
    ) -> None:
        """Run methods with one seed, and keep their results.

        Args:
            file: The federation file.
            methods: The methods, as written in a command.
            seed: The seed.
            overrides: Settings of the file that change, as after --set.
            out: Folder of the comparison.
            split: The split to score.
            as_method: What to call the method, if not as written.
        """
        found = compare(
            file,
            methods,
            seeds=1,
            overrides=[*overrides, f"seed={seed}"],
            out=out,
            split=split,
            notice=lambda line: print(line, flush=True),
        )
        self.add(found, as_method)

    def add(self, found: Comparison, as_method: str = "") -> None:
        """Add the complete runs of a comparison, under another name if one is given; one with a problem is not kept."""
        broken = {(label, seed) for label, seed, _ in found.problems}
        for label, seed, reason in found.problems:
            print(f"not kept: {label}, seed {seed}: {reason}", flush=True)
        for method in found.methods:
            for seed, result in found.results.get(method.label, {}).items():
                if (method.label, seed) not in broken:
                    key = as_method or method.text, seed
                    self.runs[key], self.commits[key] = result.clients, commit()

    def write(self) -> None:
        """Write the file."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        for (method, seed), clients in sorted(self.runs.items()):
            for client, result in sorted(clients.items()):
                key = {"method": method, "seed": seed, "client": client}
                writer.writerow({**key, **asdict(result), "commit": self.commits[method, seed]})
        files.write_text(self.path, stream.getvalue())


def commit() -> str:
    """Return the commit of the code; with "+" where files differ from it, "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--", "../../src") else ""
    )
