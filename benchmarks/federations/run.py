"""Compare methods on federations with something to gain, as `declared.toml` says.

    python benchmarks/federations/run.py related --labels 32 [--seeds 3] [--validation] [--methods M …]

Run it again to resume, or with more seeds to add some. `results/NAME.runs.csv` keeps the result of every run, and the
tables `NAME.md` and `NAME.csv` are made of it; a run that it holds is not repeated. Delete its lines to run it again.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from statistics import fmean

from kept_runs import KeptRuns

from h2tune import files
from h2tune.compare.comparison import Comparison
from h2tune.compare.methods import parse_methods
from h2tune.compare.rows import ALL
from h2tune.compare.tables import cells, csv_text, markdown
from h2tune.config import load

HERE = Path(__file__).resolve().parent
AGAINST = "h2tune"


def main() -> None:
    """Compare the declared methods in one federation."""
    declared = tomllib.loads((HERE / "declared.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation", choices=declared["federations"])
    parser.add_argument(
        "--labels", help="labels of each client; by default the first number that is declared"
    )
    parser.add_argument("--seeds", type=int, default=declared["seeds"])
    parser.add_argument(
        "--validation", action="store_true", help="score validation texts, to choose settings"
    )
    parser.add_argument("--methods", nargs="+", default=declared["methods"]["all"])
    parser.add_argument("--runs", type=Path, default=Path("runs/federations"))
    options = parser.parse_args()
    steps = declared["federations"][options.federation]
    labels = options.labels or next(iter(steps))
    if labels not in steps:
        parser.error(f"{labels} labels are not declared: {', '.join(steps)}")
    skipped = declared["skipped"].get(options.federation, [])
    options.methods = [method for method in options.methods if method.partition("+")[0] not in skipped]
    run(options, labels, steps[labels], declared["methods"]["all"])


def run(options: argparse.Namespace, labels: str, steps: int, declared: list[str]) -> None:
    """Run what is not kept yet, seed by seed, and write the tables after each seed."""
    name = options.federation if labels == "0" else f"{options.federation}-{labels}"
    split = "validation" if options.validation else "test"
    out = options.runs / (name if split == "test" else f"{name}-validation")
    results = HERE / "results" if split == "test" else out
    overrides = [f"train.local_steps={steps}"] + ([f"data.train={labels}"] if labels != "0" else [])
    wanted = [method.replace("TWICE", str(2 * steps)) for method in options.methods]
    known = [method.replace("TWICE", str(2 * steps)) for method in declared]
    file = HERE / f"{options.federation}.toml"
    first = load(file).seed
    kept = KeptRuns(results / f"{name}.runs.csv")
    for seed in range(first, first + options.seeds):
        missing = [method for method in wanted if not kept.has(method, seed)]
        if missing:
            kept.run(file, missing, seed, overrides, out, split)
        if not kept.methods():
            raise SystemExit("no run was kept: see the reasons above")
        kept.write()
        write_tables(kept, known, options.federation, split, results / name)
    print((results / f"{name}.md").read_text())


def write_tables(kept: KeptRuns, known: list[str], federation: str, split: str, path: Path) -> None:
    """Write PATH.md and PATH.csv: differences to `local`, and on the mean over clients also to h2tune.

    What is not among the declared methods, such as h2tune without a part, has a table and a correction of its own.
    """

    def comparison(texts: list[str]) -> Comparison:
        methods = parse_methods(texts)
        results = {method.label: kept.results(method.text) for method in methods}
        seeds = sorted({seed for runs in results.values() for seed in runs})
        clients = sorted({client for runs in results.values() for r in runs.values() for client in r.clients})
        return Comparison(path.parent, federation, split, methods[0].label, methods, seeds, clients, results)

    others = sorted(kept.methods() - set(known))
    found = comparison([text for text in known if text in kept.methods()] or others)
    rows = found.rows()
    text = markdown(rows, found.facts())
    if AGAINST in found.results and found.reference != AGAINST:
        text += differences(found, f"Mean over clients, difference to {AGAINST}")
        if others:
            text += differences(comparison([AGAINST, *others]), "Other settings, mean over clients")
    text += losses(found)
    files.write_text(path.with_name(f"{path.name}.md"), text)
    files.write_text(path.with_name(f"{path.name}.csv"), csv_text(rows))


def losses(found: Comparison) -> str:
    """Return a table of the mean loss over clients and over the seeds whose loss was kept."""
    rows = []
    for method, runs in found.results.items():
        known = [[c.loss for c in run.clients.values() if c.loss is not None] for run in runs.values()]
        means = [fmean(values) for values in known if values]
        if means:
            rows.append(f"| {method} | {len(means)} | {fmean(means):.2f} |")
    head = ["", "## Loss, nats, mean over clients", "", "| method | seeds | loss |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n" if rows else ""


def differences(found: Comparison, title: str) -> str:
    """Return a table of differences to h2tune, on the mean over clients."""
    found.reference = AGAINST
    lines = [
        "",
        f"## {title}",
        "",
        "| method | accuracy, % | difference, points | p (Holm) |",
        "|---|---|---|---|",
    ]
    for row in found.rows():
        if row.client == ALL:
            shown = cells(row)
            lines.append(f"| {row.method} | {shown[2]} | {shown[3]} | {shown[6]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
