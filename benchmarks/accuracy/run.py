"""Compare the methods in one corner on test data, each at the rate that `tune.py` chose; `pooled` has that of `local`.

    python benchmarks/accuracy/run.py same-models-same-tasks [--ablations] [--seeds 5]

Run it again to resume. Writes `results/CORNER.md` and `.csv` (with --ablations: CORNER-ablations).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import corners

from h2tune.compare import compare


def main() -> None:
    """Compare in one corner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corner", choices=corners.CORNERS)
    parser.add_argument("--ablations", action="store_true", help="h2tune against itself with one switch off")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--against")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--tuned", type=Path, default=corners.HERE / "tuned")
    parser.add_argument("--results", type=Path, default=corners.HERE / "results")
    options = parser.parse_args()
    methods = options.methods or (
        ["h2tune", *corners.ABLATIONS, "h2tune-alone"] if options.ablations else list(corners.METHODS)
    )
    path = options.tuned / f"{options.corner}.json"
    if not path.exists():
        sys.exit(f"{path} is not there: choose learning rates first, with tune.py {options.corner}")
    chosen = json.loads(path.read_text())["chosen"]
    # what follows a method (-SWITCH, +KEY=VALUE) changes nothing of its rates, unless it was tuned separately
    plain = {method: re.sub(r"^h2tune-.*", "h2tune", method.partition("+")[0]) for method in methods}
    plain = {method: "local" if name == "pooled" else name for method, name in plain.items()}
    base = {method: method if method in chosen else plain[method] for method in methods}
    if missing := [method for method in methods if base[method] not in chosen]:
        sys.exit(f"{path} has no rate for {', '.join(missing)}: run tune.py {options.corner}")
    found = compare(
        corners.file_of(options.corner),
        [corners.with_rates(m, chosen[base[m]]) for m in methods],
        seeds=options.seeds,
        overrides=options.changes,
        out=options.runs / options.corner,
        against=options.against or ("h2tune" if options.ablations else None),
        split="test",
        notice=lambda line: print(line, flush=True),
    )
    options.results.mkdir(parents=True, exist_ok=True)
    name = options.corner + ("-ablations" if options.ablations else "")
    for ending in ("md", "csv"):
        shutil.copyfile(found.folder / f"comparison.{ending}", options.results / f"{name}.{ending}")
    print((options.results / f"{name}.md").read_text())


if __name__ == "__main__":
    main()
