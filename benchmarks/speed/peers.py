"""The same federation of tiny models in h2tune, Flower's simulation and Apple's pfl-research: seconds and memory.

    OMP_NUM_THREADS=1 python benchmarks/speed/peers.py --flower-python PATH --pfl-python PATH

FedAvg of LoRA matrices: 100 clients with a tiny Llama, ten a round, 20 rounds. Each engine runs in a process of its
own, in turn, one client at a time. The peers may have interpreters (environments) of their own; one that is missing is
a row that says how to install it. Model and rows are made beforehand, and are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers_watch import watched
from timing import Spread, ratios, table

HERE = Path(__file__).resolve().parent
SAME = "torch, transformers and peft in h2tune's versions"
MEASURES = {
    "run, s": ("run", 1),
    "start-up, s": ("start", 1),
    "ms per client and round, from the second round on": ("later", 0),
    "peak memory, MB": ("memory", 0),
    "CPU ms per client and round": ("processor", 0),
}
COMPARED = ("run", "later", "memory", "processor")


@dataclass(frozen=True)
class Engine:
    """An engine: its module, its interpreter, packages that it needs, how to install them, its environment."""

    module: str
    python: str
    needs: tuple[str, ...]
    install: str
    environment: Mapping[str, str]

    def installed(self) -> bool:
        """Return whether its interpreter has its packages."""
        code = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(n) for n in sys.argv[1:]))"
        return subprocess.run([self.python, "-c", code, *self.needs], check=False).returncode == 0

    def turn(self, folder: Path) -> dict[str, float]:
        """Run the job once, and return what was measured."""
        command = [self.python, str(HERE / "peers_turn.py"), self.module, str(folder)]
        log = folder / "log.txt"
        before = time.time()
        status, usage = watched(command, {**os.environ, **self.environment}, log)
        if status:
            last = "\n".join(log.read_text().splitlines()[-20:])
            raise RuntimeError(f"{self.module} ended with {status}:\n{last}")
        marks = json.loads((folder / "marks.json").read_text())
        return measures(marks, before) | {"memory": usage.memory, "others": usage.others}


def engines(flower: str, pfl: str) -> dict[str, Engine]:
    """Return the engines by name."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    quiet["RAY_worker_niceness"] = "0"  # at Ray's 15, actors hardly run on a machine that does other work
    need_flower, need_pfl = ("flwr", "ray", "torch", "peft"), ("pfl", "torch", "peft")
    get_flower = f"pip install 'flwr[simulation]', and {SAME}"
    get_pfl = f"pip install 'pfl[pytorch]', and {SAME}"
    return {
        "h2tune": Engine("peers_h2tune", sys.executable, ("h2tune",), "pip install h2tune", {}),
        "Flower": Engine("peers_flower", flower, need_flower, get_flower, quiet),
        "Flower, model kept": Engine(
            "peers_flower", flower, need_flower, get_flower, quiet | {"PEERS_KEEP_MODEL": "1"}
        ),
        "pfl-research": Engine("peers_pfl", pfl, need_pfl, get_pfl, {}),
    }


def measures(marks: Mapping[str, Any], before: float) -> dict[str, float]:
    """Return seconds from an engine's notes; `later` leaves out the first round, in which engines start up."""
    ends = marks["rounds"]
    return {
        "run": marks["ended"] - marks["began"],
        "start": marks["first"] - before,
        "later": (ends[-1] - ends[0]) / max(1, len(ends) - 1),
        "own": marks["own"] - marks["cpu"],
        "steps": sum(marks["steps"]),
        "loss": marks["losses"][-1],
    }


def collect(
    found: Mapping[str, Engine], folder: Path, repeats: int, per_round: int, client_rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return the measurements of each engine, turn after turn, in alternating order."""
    values: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    for turn in range(repeats):
        for name in list(found) if turn % 2 == 0 else reversed(found):
            once = found[name].turn(fresh(folder))
            once["later"] *= 1000 / per_round
            once["processor"] = 1000 * (once["own"] + once["others"]) / client_rounds
            for measure, value in once.items():
                values[name].setdefault(measure, []).append(value)
            print(json.dumps({"turn": turn, "engine": name, **once}), file=sys.stderr, flush=True)
    return values


def fresh(folder: Path) -> Path:
    """Return the folder without what a turn before has left."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "marks.json").unlink(missing_ok=True)
    return folder


def row(name: str, values: Mapping[str, dict[str, list[float]]]) -> list[str]:
    """Return an engine's row of the table."""
    cells = [name]
    for measure, digits in MEASURES.values():
        cells.append(Spread.of(values[name][measure]).text(digits))
        if measure in COMPARED:
            both = {key: found[measure] for key, found in values.items()}
            cells.append(ratios(both, name, "h2tune").text(2) if name != "h2tune" else "1")
    losses = Spread.of(values[name]["loss"])
    loss = f"{losses.median:.1e} ({losses.low:.1e}–{losses.high:.1e})"
    return [*cells, "/".join(sorted({f"{n:.0f}" for n in values[name]["steps"]})), loss]


def heads() -> list[str]:
    """Return the table's head."""
    head = ["engine"]
    for title, (measure, _) in MEASURES.items():
        head += [title, "× h2tune"] if measure in COMPARED else [title]
    return [*head, "optimiser steps", "loss of the last round"]


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flower-python", default=sys.executable, help="interpreter that has flwr and ray")
    parser.add_argument("--pfl-python", default=sys.executable, help="interpreter that has pfl")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--engines", nargs="+", help="only these of the table's rows")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print the table."""
    options = options_of()
    from peers_h2tune import write
    from peers_job import Job

    job = Job(clients=options.clients, per_round=options.per_round, rounds=options.rounds)
    wanted = engines(options.flower_python, options.pfl_python)
    if options.engines:
        wanted = {name: wanted[name] for name in dict.fromkeys(["h2tune", *options.engines])}
    able = {name: engine for name, engine in wanted.items() if engine.installed()}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), job)
        values = collect(able, Path(name), options.repeats, job.per_round, job.client_rounds)
    head = heads()
    rows = [
        row(name, values)
        if name in able
        else [name, f"not installed: {engine.install}", *[""] * (len(head) - 2)]
        for name, engine in wanted.items()
    ]
    print(table(head, rows))
    print(f"\n{job.steps} optimiser steps were asked for.")


if __name__ == "__main__":
    main()
