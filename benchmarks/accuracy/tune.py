"""Choose each method's learning rate on validation data, all with the same effort.

    python benchmarks/accuracy/tune.py same-models-same-tasks

Every method runs with every rate of `corners.RATES` on the tuning seeds (100 and on, which the comparison does not
use). The rate with the best mean accuracy over clients and seeds is kept in `tuned/CORNER.json`; a tie goes to the
smaller one. `data.test` stays as it is, so that no example of the test set is trained on or chosen by.
Training by itself (h2tune-alone) and the ablations take the rate of h2tune: they are the same method but for a switch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import corners

from h2tune.compare import Comparison, compare
from h2tune.compare.rows import ALL


def main() -> None:
    """Tune one corner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corner", choices=corners.CORNERS)
    parser.add_argument("--methods", nargs="+", default=[m for m in corners.METHODS if m != "h2tune-alone"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy-tuning"))
    parser.add_argument("--tuned", type=Path, default=corners.HERE / "tuned")
    options = parser.parse_args()
    written = {
        (m, r): corners.with_rate(m, options.corner, r) for m in options.methods for r in corners.RATES
    }
    found = compare(
        corners.file_of(options.corner),
        list(written.values()),
        seeds=options.seeds,
        overrides=["seed=100", *options.changes],
        out=options.runs / options.corner,
        split="validation",
        tell=lambda line: print(line, flush=True),
    )
    table = {method: _accuracies(found, written, method) for method in options.methods}
    chosen = {
        method: max(rates, key=lambda rate: (rates[rate], -rate)) for method, rates in table.items() if rates
    }
    options.tuned.mkdir(parents=True, exist_ok=True)
    content = {
        "seeds": found.seeds,
        "chosen": chosen,
        "validation_accuracy": {
            m: {f"{r:g}": round(a, 4) for r, a in rates.items()} for m, rates in table.items()
        },
        "problems": [f"{method}, seed {seed}: {reason}" for method, seed, reason in found.problems],
    }
    path = options.tuned / f"{options.corner}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(path.read_text())


def _accuracies(found: Comparison, written: dict[tuple[str, float], str], method: str) -> dict[float, float]:
    """Return rate → mean validation accuracy, of the rates at which every seed came to its end."""
    label = {m.text: m.label for m in found.methods}
    rows = {row.method: row for row in found.rows() if row.client == ALL and row.seeds == len(found.seeds)}
    rates = {rate: label[text] for (name, rate), text in written.items() if name == method}
    return {rate: rows[name].mean for rate, name in rates.items() if name in rows}


if __name__ == "__main__":
    main()
