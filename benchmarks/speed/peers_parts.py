"""Which part of h2tune's run of the job of `peers.py` takes how much processor time.

    OMP_NUM_THREADS=1 python benchmarks/speed/peers_parts.py

A few functions are replaced by timed ones, so that measuring costs next to nothing; a profiler triples the time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

from parts import Parts
from timing import table

PARTS = {
    "rounds: steps, and the Trainer's loop around them": ["training.trainer:AlternatingTrainer._run_epoch"],
    "rounds: rest of local training": ["federation.client_round:ClientRound._train"],
    "rounds: attach the adapter": ["federation.client_round:attach_adapter"],
    "rounds: scoring": ["federation.client_round:ClientRound._evaluate"],
    "rounds: commit, with fsync": ["federation.local_engine:LocalEngine._commit"],
    "rounds: all else": ["runs.run:run_rounds"],
    "before: plan, checks of the texts": ["runs.run:planned", "runs.run:_Job._check_texts"],
    "after: adapters of all clients": ["runs.run:export_adapters"],
    "after: report": ["report:write_report"],
}
"""Part → functions, for `Parts`."""


def main() -> None:
    """Run the job and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    import peers_h2tune
    from peers_job import Job

    job = Job(clients=options.clients, per_round=options.per_round, rounds=options.rounds)
    parts = Parts(PARTS, time.process_time).seconds
    with tempfile.TemporaryDirectory() as name:
        peers_h2tune.write(Path(name), job)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            marks = peers_h2tune.run(Path(name))
    whole = marks.own - marks.cpu
    parts["all else"] = whole - sum(parts.values())
    cells = [[part, f"{found:.1f}", f"{100 * found / whole:.0f} %"] for part, found in parts.items()]
    print(table(["part", "s", "share"], [*cells, ["all", f"{whole:.1f}", ""]]))


if __name__ == "__main__":
    main()
