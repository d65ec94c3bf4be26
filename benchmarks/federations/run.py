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
        "--labels", type=int, help="labels of each client; by default the first that is declared"
    )
    parser.add_argument("--seeds", type=int, default=declared["seeds"])
    parser.add_argument(
        "--validation", action="store_true", help="score validation texts, to choose settings"
    )
    parser.add_argument("--methods", nargs="+", default=declared["methods"]["all"])
    parser.add_argument("--runs", type=Path, default=Path("runs/federations"))
    options = parser.parse_args()
    labels = options.labels if options.labels is not None else declared["federations"][options.federation][0]
    if labels not in declared["federations"][options.federation]:
        parser.error(f"{labels} labels are not declared: {declared['federations'][options.federation]}")
    name = f"{options.federation}-{labels}" if labels else options.federation
    split = "validation" if options.validation else "test"
    found = None
    for seeds in range(1, options.seeds + 1):  # the tables are complete after each seed
        found = compare(
            HERE / f"{options.federation}.toml",
            options.methods,
            seeds=seeds,
            overrides=[f"data.train={labels}"] if labels else [],
            out=options.runs / (name if split == "test" else f"{name}-validation"),
            split=split,
            notice=lambda line: print(line, flush=True),
        )
        if split == "test":
            (HERE / "results").mkdir(exist_ok=True)
            for ending in ("md", "csv"):
                shutil.copyfile(found.folder / f"comparison.{ending}", HERE / "results" / f"{name}.{ending}")
    if found is not None:
        print((found.folder / "comparison.md").read_text())


if __name__ == "__main__":
    main()
