"""Compare methods on federations with something to gain, as `declared.toml` says.

    python benchmarks/federations/run.py related --labels 32 [--seeds 3] [--validation] [--methods M …]

Run it again to resume, or with more seeds to add some. Writes `results/NAME-LABELS.md` and `.csv` after each seed.
"""

from __future__ import annotations

import argparse
import shutil
import tomllib
from pathlib import Path

from h2tune.compare import compare

HERE = Path(__file__).resolve().parent


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
    run(options, labels, steps[labels])


def run(options: argparse.Namespace, labels: str, steps: int) -> None:
    """Compare the methods, and write the tables after each seed."""
    name = options.federation if labels == "0" else f"{options.federation}-{labels}"
    split = "validation" if options.validation else "test"
    overrides = [f"train.local_steps={steps}"] + ([f"data.train={labels}"] if labels != "0" else [])
    for seeds in range(1, options.seeds + 1):
        found = compare(
            HERE / f"{options.federation}.toml",
            [method.replace("TWICE", str(2 * steps)) for method in options.methods],
            seeds=seeds,
            overrides=overrides,
            out=options.runs / (name if split == "test" else f"{name}-validation"),
            split=split,
            notice=lambda line: print(line, flush=True),
        )
        if split == "test":
            (HERE / "results").mkdir(exist_ok=True)
            for ending in ("md", "csv"):
                shutil.copyfile(found.folder / f"comparison.{ending}", HERE / "results" / f"{name}.{ending}")
    print((found.folder / "comparison.md").read_text())


if __name__ == "__main__":
    main()
