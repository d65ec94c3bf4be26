"""What a run costs as it grows: seconds, memory and disk against clients, rank, depth or rounds, with fitted exponents.

    python benchmarks/speed/growth.py clients            # 10, 100, 1,000 clients over three base models
    python benchmarks/speed/growth.py rank depth rounds

Real runs through the same code as `h2tune run`, export and report included, each in a process of its own; models are
tiny (Llama, BERT, GPT-NeoX), a client has 16 examples and takes one step a round. An exponent of 1: in proportion.
Writes `growth-AXIS.svg` beside this file, or where --out says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import Spread, in_process, memory, table

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests"), str(HERE.parent)]
FAMILIES = ("llama", "bert", "gpt_neox")
USUAL = {"clients": 3, "rank": 8, "depth": 4, "rounds": 2}
POINTS = {"clients": (10, 100, 1000), "rank": (4, 16, 64), "depth": (4, 16, 64), "rounds": (2, 8, 32)}


def measure(clients: int, rank: int, depth: int, rounds: int) -> tuple[float, ...]:
    """Return the cost of a run: peak memory and its growth in MB, seconds, kB on disk per client."""
    import tomli_w
    from helpers import federations

    import h2tune

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = federations.federation(
            folder,
            [(f"c{i:05d}", FAMILIES[i % 3], rank) for i in range(clients)],
            options={family: {"width": 128, "blocks": depth} for family in FAMILIES},
            server={"rounds": rounds, "min_clients": clients},
            train={"local_steps": 1, "batch_size": 8},
            data={"train": 16, "validation": 0, "test": 8},
            experimental={"evaluate_rounds": "last"},
        )
        file = folder / "growth.toml"
        file.write_text(tomli_w.dumps(content))
        before, start = memory(), time.perf_counter()
        run = h2tune.run(file, out=folder / "run")
        took = time.perf_counter() - start
        kept = sum(p.stat().st_size for p in (run.folder / "clients").glob("*/state/*/*.safetensors"))
        return memory(), memory() - before, took, kept / clients / 1e3


def exponent(points: list[int], values: list[float]) -> float:
    """Return the slope of log values against log points."""
    return float(np.polyfit(np.log(points), np.log(values), 1)[0])


def picture(axis: str, points: list[int], measured: dict[str, list[float]], slopes: list[float]) -> str:
    """Return the chart of one axis: what is measured as multiples of the smallest run's, beside proportion."""
    import loglog

    own = [
        loglog.Line([v / values[0] for v in values], colour, f"{what}: exponent {slope:.2f}", marks=True)
        for (what, values), colour, slope in zip(measured.items(), loglog.COLOURS, slopes, strict=True)
    ]
    guide = loglog.Line([p / points[0] for p in points], loglog.GUIDE, "in proportion", 1.5, "6 4")
    description = "; ".join(line.label for line in own)
    return loglog.draw(
        points, [guide, *own], f"Cost against {axis}", description, axis, f"× of {points[0]} {axis}"
    )


def vary(axis: str, points: list[int], repeats: int, out: Path) -> None:
    """Print the table of one axis, with the medians of some runs of each size, and draw its chart."""
    rows, found = [], []
    for point in points:
        size = USUAL | {axis: point}
        runs = [
            in_process(measure, *(size[k] for k in ("clients", "rank", "depth", "rounds")))
            for _ in range(repeats)
        ]
        found.append([Spread.of(values) for values in zip(*runs, strict=True)])
        most, grew, took, kept = found[-1]
        each = 1000 * took.median / size["clients"] / size["rounds"]
        rows.append([point, most.text(0), grew.text(0), took.text(1), f"{each:.0f}", f"{kept.median:.0f}"])
        print(json.dumps({axis: rows[-1]}), flush=True)
    measured = {
        what: [f[i].median for f in found] for i, what in ((1, "memory"), (2, "seconds"), (3, "disk"))
    }
    slopes = [exponent(points, values) for values in measured.values()]
    (out / f"growth-{axis}.svg").write_text(picture(axis, points, measured, slopes))
    # the last two points are least affected by the fixed cost of a run
    last = [exponent(points[-2:], values[-2:]) for values in measured.values()]
    for name, (grew, took, kept) in (("exponent", slopes), ("of the last two", last)):
        rows.append([name, "", f"{grew:.2f}", f"{took:.2f}", "", f"{kept:.2f}"])
    head = ["peak memory, MB", "of it in the run", "s", "ms per client and round", "kB on disk per client"]
    print(table([axis, *head], rows))


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axes", nargs="+", choices=list(POINTS))
    parser.add_argument("--points", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    for axis in options.axes:
        vary(axis, list(options.points or POINTS[axis]), options.repeats, options.out)


if __name__ == "__main__":
    main()
