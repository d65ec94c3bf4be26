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
from statistics import fmean
from unittest import mock

from kept_runs import KeptRuns
from torch import Tensor

from h2tune import files
from h2tune.compare import compare
from h2tune.config import load
from h2tune.evaluation.statistics import differences, holm, mean_interval, paired_t_p
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
    for seed in range(first, first + options.seeds):
        overrides = [f"train.local_steps={steps}", f"data.train={options.labels}", f"seed={seed}"]
        for method in wanted:
            if not whole.has(method, seed) and not kept.has(method, seed):
                run(method, file, overrides, options.runs / name, kept, seed)
        kept.write()
        files.write_text(results / f"{name}-parts.md", table(name, parts, whole, kept))
    print((results / f"{name}-parts.md").read_text())


def run(method: str, file: Path, overrides: list[str], out: Path, kept: KeptRuns, seed: int) -> None:
    """Run one method with one seed on the test texts, and keep its result."""
    equal = method == EQUAL
    with equal_relevance() if equal else contextlib.nullcontext():
        found = compare(
            file,
            ["h2tune" if equal else method],
            seeds=1,
            overrides=overrides,
            out=out.with_name(f"{out.name}-equal") if equal else out,
            split="test",
            notice=lambda line: print(line, flush=True),
        )
    kept.add(found, as_method=method)


@contextlib.contextmanager
def equal_relevance() -> Iterator[None]:
    """Let each client hear all who know something alike."""

    def equal(similarity: Tensor, dimensions: int, knows: Tensor) -> Tensor:
        return knows.float().expand(len(knows), -1).clone().fill_diagonal_(1.0)

    with mock.patch.object(knowledge, "relevance", equal):
        yield


def table(name: str, parts: dict[str, list[str]], whole: KeptRuns, kept: KeptRuns) -> str:
    """Return the table: a part, h2tune with and without it over the seeds of both, and their difference."""

    def means(method: str) -> dict[int, float]:
        found = whole.results(method) or kept.results(method)
        return {seed: fmean(c.accuracy for c in run.clients.values()) for seed, run in found.items()}

    pairs = {part: (means(first), means(second)) for part, (first, second) in parts.items()}
    lines, tests = [], []
    for part, (with_it, without) in pairs.items():
        seeds = sorted(with_it.keys() & without.keys())
        if len(seeds) < 2:
            continue
        here, there = [with_it[s] for s in seeds], [without[s] for s in seeds]
        gap = differences(here, there)
        interval = mean_interval(gap)
        ends = formats.point_ends(interval.low, interval.high)
        tests.append(paired_t_p(gap))
        lines.append(
            f"| {part} | {len(seeds)} | {formats.bare_percent(fmean(here))} | {formats.bare_percent(fmean(there))} | "
            f"{formats.points(interval.mean)} ({ends}) |"
        )
    rows = [f"{line} {formats.probability(p)} |" for line, p in zip(lines, holm(tests), strict=True)]
    head = [
        "| part | seeds | with it | without it | difference, points | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    said = [f"* {part}: `{first}` against `{second}`" for part, (first, second) in parts.items()]
    title = f"# Parts of h2tune: {name}\n\nTest accuracy, %, mean over clients; paired seeds, as many rows in both.\n"
    return "\n".join([title, *head, *rows, "", *said]) + "\n"


if __name__ == "__main__":
    main()
