"""Rows of the transfer benchmark and the table made of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from h2tune.evaluation.statistics import mean_interval

COLUMNS = (
    "source",
    "target",
    "split",
    "run",
    "scale",
    "rank",
    "condition",
    "probe",
    "said",
    "said_calibrated",
)
KEYS = 7  # of the columns


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, none if there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def append(path: Path, row: tuple[str, ...], found: dict[str, float]) -> None:
    """Add one line, with a header if it is the first."""
    new = not path.exists()
    with path.open("a", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([*row, *(f"{found[c]:.5f}" if c in found else "" for c in COLUMNS[KEYS:])])
    print(*row, {key: round(value, 4) for key, value in found.items()}, flush=True)


def summary(rows: list[dict[str, str]], split: str, kind: str) -> str:
    """Return a Markdown table: means over runs, differences to zero T with 95 % t intervals over runs.

    It is empty where nothing was run twice, as one run has no interval.
    """
    table = {tuple(r[c] for c in COLUMNS[:KEYS]): r for r in rows if r["split"] == split}
    groups = sorted({(k[0], k[1], k[4], k[5]) for k in table if k[0] != "-"})
    compared = "zero | T − zero | −T − zero | random − zero | T − identity"
    titles = [f"| source → target | s | {kind} | measure | runs | {compared} |", "|---" * 10 + "|"]
    lines: list[str] = []
    for source, target, scale, rank in groups:
        runs = sorted({k[3] for k in table if k[:3] == (source, target, split) and k[4:6] == (scale, rank)})
        if len(runs) < 2:  # no interval
            continue
        for measure in COLUMNS[KEYS:]:

            def values(
                name: str, measure: str = measure, group=(source, target, scale, rank), runs=runs
            ) -> np.ndarray:
                source, target, scale, rank = ("-", group[1], "0", "0") if name == "zero" else group
                found = [
                    table.get((source, target, split, r, scale, rank, name), {}).get(measure) for r in runs
                ]
                return np.array([100 * float(v or "nan") for v in found])

            if np.isnan(values("zero")).any():
                continue
            cells = []
            for name, base in (("T", "zero"), ("-T", "zero"), ("random", "zero"), ("T", "identity")):
                difference = values(name) - values(base)
                if np.isnan(difference).any():
                    cells.append("")
                    continue
                mean, low, high = mean_interval(difference)
                cells.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
            head = f"| {source} → {target} | {scale} | {rank} | {measure} | {len(runs)} | {values('zero').mean():.1f} |"
            lines.append(f"{head} {' | '.join(cells)} |")
    return "\n".join([*titles, *lines]) + "\n" if lines else ""
