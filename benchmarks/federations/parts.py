"""What is each part of h2tune worth? Runs h2tune with and without each part that `declared.toml` names.

    python benchmarks/federations/parts.py related --labels 32 [--seeds 4]

Run it again to resume, or with more seeds to add some. `results/NAME-parts.runs.csv` keeps the result of every run.
What `results/NAME.runs.csv` holds is not repeated. The table is `results/NAME-parts.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from kept_runs import KeptRuns
from torch import Tensor

from h2tune import files
from h2tune.compare.rows import ALL, rows_of
from h2tune.compare.tables import difference
from h2tune.config import load
from h2tune.evaluation.statistics import holm
from h2tune.federation.teaching import knowledge
from h2tune.report import formats

HERE = Path(__file__).resolve().parent
EQUAL = "h2tune, equal relevance"
"""A run that no setting names: every client that knows something counts as one in (13)."""


def main() -> None:
    """Run what is not kept yet, seed by seed, and write the table after each seed."""
    declared = tomllib.loads((HERE / "declared.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation", choices=declared["federations"])
    parser.add_argument("--labels", required=True, help="labels of each client")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--parts", nargs="+", choices=declared["parts"], default=list(declared["parts"]))
    parser.add_argument("--runs", type=Path, default=Path("runs/federations"))
    options = parser.parse_args()
    steps, parts = declared["federations"][options.federation][options.labels], declared["parts"]
    wanted = dict.fromkeys(text for part in options.parts for text in parts[part])
    name, file = f"{options.federation}-{options.labels}", HERE / f"{options.federation}.toml"
    results, first = HERE / "results", load(file).seed
    whole, kept = KeptRuns(results / f"{name}.runs.csv"), KeptRuns(results / f"{name}-parts.runs.csv")
    overrides = [f"train.local_steps={steps}", f"data.train={options.labels}"]
    for seed in range(first, first + options.seeds):
        for method in wanted:
            if whole.has(method, seed) or kept.has(method, seed):
                continue
            if method == EQUAL:
                with equal_relevance():
                    out = options.runs / f"{name}-equal"
                    kept.run(file, ["h2tune"], seed, overrides, out, as_method=EQUAL)
            else:
                kept.run(file, [method], seed, overrides, options.runs / name)
        kept.write()
        files.write_text(results / f"{name}-parts.md", table(name, parts, whole, kept))
    print((results / f"{name}-parts.md").read_text())


@contextlib.contextmanager
def equal_relevance() -> Iterator[None]:
    """Let each client hear all who know something alike."""

    def equal(similarity: Tensor, dimensions: int, knows: Tensor) -> Tensor:
        return knows.float().expand(len(knows), -1).clone().fill_diagonal_(1.0)

    with mock.patch.object(knowledge, "relevance", equal):
        yield


def table(name: str, parts: dict[str, list[str]], whole: KeptRuns, kept: KeptRuns) -> str:
    """Return the table: a part, h2tune with and without it over the seeds of both, and their difference."""
    found = {}
    for part, pair in parts.items():
        with_it, without = (kept.results(method) | whole.results(method) for method in pair)
        seeds = sorted(with_it.keys() & without.keys())
        if len(seeds) > 1:
            both = {"with": {s: with_it[s] for s in seeds}, "without": {s: without[s] for s in seeds}}
            rows = rows_of(both, "without", sorted(with_it[seeds[0]].clients), {}, seeds[0])
            found[part] = {row.method: row for row in rows if row.client == ALL}
    corrected = holm([row["with"].p or 0.0 for row in found.values()])
    lines = [
        f"| {part} | {row['with'].seeds} | {formats.bare_percent(row['with'].mean)} | "
        f"{formats.bare_percent(row['without'].mean)} | {difference(row['with'])} | {formats.probability(p)} |"
        for (part, row), p in zip(found.items(), corrected, strict=True)
    ]
    head = [
        "| part | seeds | with it | without it | difference, points | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    said = [f"* {part}: `{first}` against `{second}`" for part, (first, second) in parts.items()]
    title = f"# Parts of h2tune: {name}\n\nTest accuracy, %, mean over clients; paired seeds, as many rows in both.\n"
    return "\n".join([title, *head, *lines, "", *said]) + "\n"


if __name__ == "__main__":
    main()
