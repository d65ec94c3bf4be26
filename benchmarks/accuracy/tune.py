"""Choose each method's learning rate on validation data, all with the same effort.

    python benchmarks/accuracy/tune.py same-models-same-tasks

Every method runs with the same candidate rates (`corners.candidates`) on the tuning seeds, which the comparison does
not use. What `corners.choose` finds best is kept in `tuned/CORNER.json`, beside what was tried. `data.test` stays as it
is, so that no example of the test set is trained on or chosen by. Training alone (h2tune-alone) and the ablations
take the rates of h2tune: they are the same method but for a switch.
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
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy-tuning"))
    parser.add_argument("--tuned", type=Path, default=corners.HERE / "tuned")
    options = parser.parse_args()
    candidates = corners.candidates(options.corner)
    written = {m: [corners.with_rates(m, rates) for rates in candidates] for m in options.methods}
    found = compare(
        corners.file_of(options.corner),
        [text for texts in written.values() for text in texts],
        seeds=options.seeds,
        overrides=[f"seed={options.first_seed}", *options.changes],
        out=options.runs / options.corner,
        split="validation",
        notice=lambda line: print(line, flush=True),
    )
    path = options.tuned / f"{options.corner}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    content = {"seeds": found.seeds, "chosen": before.get("chosen", {}), "tried": before.get("tried", {})}
    for method, texts in written.items():
        accuracies = [_accuracies(found, text) for text in texts]
        content["chosen"][method] = corners.choose(options.corner, accuracies)
        content["tried"][method] = [
            {"rates": rates, "accuracy": {c: round(a, 4) for c, a in accuracy.items()}}
            for rates, accuracy in zip(candidates, accuracies, strict=True)
        ]
    options.tuned.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(path.read_text())


def _accuracies(found: Comparison, text: str) -> dict[str, float]:
    """Return client → mean validation accuracy over seeds of a method with its rates.

    Raises:
        SystemExit: A run did not come to its end.
    """
    label = next(m.label for m in found.methods if m.text == text)
    rows = [row for row in found.rows() if row.method == label and row.client != ALL]
    if not rows or any(row.seeds < len(found.seeds) for row in rows):
        raise SystemExit(f"{text} has no result: {found.problems}")
    return {row.client: row.mean for row in rows}


if __name__ == "__main__":
    main()
