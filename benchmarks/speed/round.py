"""What a round costs that is not training: read off the events of a run.

    h2tune run examples/quickstart.toml --out runs/round
    python benchmarks/speed/round.py runs/round

"wall" is the time between the log's lines, so that nothing is left out: exporting and the report come after the rounds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from timing import table

PARTS = ("load", "train", "evaluate", "save")


def main() -> None:
    """Print a table of the rounds of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    lines = (parser.parse_args().run / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    rounds: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in events:
        if event["event"] == "client_trained" and event["stage"] == "trained":
            for part in PARTS:
                rounds[event["round"]][part] += event["seconds"][part]
        elif event["event"] == "aggregated" and event["stage"] == "trained":
            rounds[event["round"]]["aggregate"] += event["seconds"]
            rounds[event["round"]]["end"] = event["time"]
        elif event["event"] == "evaluated" and event["stage"] == "before":
            rounds[0]["before"] += event["seconds"]
    rows, last = [], None
    for number, parts in sorted(rounds.items()):
        wall = parts["end"] - last if last is not None else float("nan")
        last = parts["end"]
        other = wall - sum(parts[p] for p in PARTS) - parts["aggregate"] if number else float("nan")
        overhead = parts["load"] + parts["save"] + parts["aggregate"] + (other if number else 0)
        share = f"{100 * overhead / wall:.1f} %" if number else "–"
        cells = [*(parts[p] for p in PARTS), parts["aggregate"], other, wall]
        rows.append([number + 1, *(f"{cell:.2f}" for cell in cells), share])
    print(table(["round", *PARTS, "aggregate", "between", "wall", "not training or scoring"], rows))


if __name__ == "__main__":
    main()
