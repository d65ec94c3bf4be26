"""A comparison of methods: its results so far, and the files that are written from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune._version import __version__
from h2tune.compare.headroom import LOCAL, POOLED, Recovered, recovered
from h2tune.compare.methods import Method
from h2tune.compare.paper import latex, write_figures
from h2tune.compare.results import RunResult
from h2tune.compare.rows import Row, rows_of
from h2tune.compare.tables import csv_text, event_of, markdown
from h2tune.errors import H2TuneError
from h2tune.report import formats


@dataclass
class Comparison:
    """A comparison, finished or in progress.

    Args:
        folder: Its folder; the runs are in METHOD/seed-N below it.
        name: Name of the federation.
        split: The split that is scored.
        reference: Label of the method to which differences are taken.
        methods: The methods, in order.
        seeds: The seeds, in order.
        clients: Names of the clients.
        results: Method → seed → result.
        federation: The settings of the file by dotted key, as text.
        members: Name, model, task and rank of each client.
        notes: (method, client) → a line on how the client takes part, such as why it shares nothing.
        problems: (method, seed, one line): runs and clients that failed.
    """

    folder: Path
    name: str
    split: str
    reference: str
    methods: list[Method]
    seeds: list[int]
    clients: list[str]
    results: dict[str, dict[int, RunResult]] = field(default_factory=dict)
    federation: dict[str, str] = field(default_factory=dict)
    members: list[dict[str, str]] = field(default_factory=list)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[tuple[str, int, str]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Return the rows of the table."""
        return rows_of(self.results, self.reference, self.clients, self.notes, self.seeds[0])

    def facts(self) -> dict[str, Any]:
        """Return the facts that accompany the rows: name, split, seeds, settings, notes, problems, environment."""
        from h2tune.runs.environment import environment

        return {
            "name": self.name,
            "split": self.split,
            "measure": self._measure(),
            "reference": self.reference,
            "seeds": self.seeds,
            "settings": {m.label: list(m.changes) for m in self.methods if m.changes},
            "notes": [{"method": m, "client": c, "note": n} for (m, c), n in self.notes.items()],
            "problems": [{"method": m, "seed": s, "reason": r} for m, s, r in self.problems],
            "federation": self.federation,
            "members": self.members,
            "environment": environment(),
            "recovered": [r.as_dict() for r in self._recovered()],
        }

    def _measure(self) -> str:
        """Return what the clients are scored by: accuracy, another measure, or "score" where clients differ."""
        runs = [run for by_seed in self.results.values() for run in by_seed.values()]
        return formats.measure_of(client.measure for run in runs for client in run.clients.values())

    def _recovered(self) -> list[Recovered]:
        """Return the share of the headroom of each method; the first `local` and `pooled` count, changed or not."""
        first = {method.name: method.label for method in reversed(self.methods)}
        return recovered(self.results, self.clients, first.get(LOCAL, LOCAL), first.get(POOLED, POOLED))

    def check_results(self) -> None:
        """Refuse a comparison in which a method has no result at all.

        Raises:
            H2TuneError: Names the methods.
        """
        missing = [method.label for method in self.methods if not self.results.get(method.label)]
        if missing:
            raise H2TuneError(
                f"no run of {', '.join(missing)} finished",
                where=str(self.folder),
                remedy="Correct what the lines above name, and run the same command again",
            )

    def write(self, began: float) -> None:
        """Write tables (Markdown, CSV, LaTeX), figures, the event and the report into the comparison's folder.

        Args:
            began: When the comparison began, as `time.time` returns it.
        """
        from h2tune.report import write_report

        rows, facts = self.rows(), self.facts()
        files.write_text(self.folder / "comparison.md", markdown(rows, facts))
        files.write_text(self.folder / "comparison.csv", csv_text(rows))
        files.write_text(self.folder / "comparison.tex", latex(rows, facts))
        write_figures(self.folder / "figures", rows, self.reference)
        files.write_text(self.folder / "events.jsonl", event_of(rows, facts, __version__, began))
        write_report(self.folder)
