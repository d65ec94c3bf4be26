"""Seconds from `h2tune.run` to a model's first batch: enrolment, data, weights, adapter; assets are there already.

    python benchmarks/speed/first_batch.py [--models all-minilm-l6-v2 …] [--repeats 5]

In a process of its own each time, libraries imported beforehand (start.py has what that takes). The default basis reads
public texts through the model before it trains, the first time that these weights meet these texts; "again" is a later
run, which finds what was read. "free" reads none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import clients
from timing import Spread, in_process, in_turn, table

BASES = ("free", "anchored", "anchored, again")


class FirstBatchError(BaseException):
    """Ends a run; no `Exception`, which would be the client's failure alone."""


def seconds(model: str, basis: str, readings: Path) -> float:
    """Return the seconds until the first batch; what is read of public texts is kept in a folder."""
    import h2tune
    from h2tune.federation.h2tune import reading_cache
    from h2tune.runs import run
    from h2tune.training.trainer import AlternatingTrainer

    def stop(*_, **__):
        raise FirstBatchError

    AlternatingTrainer.training_step = stop
    run.default_reading_cache = lambda: reading_cache.ReadingCache(readings)
    federation = clients.federation_of(
        model, "h2tune", steps=1, rank=8, shared_rank=16, changes="", examples=128
    )
    federation = federation.model_copy(
        update={
            "basis": federation.basis.model_copy(update={"kind": basis}),
            "experimental": federation.experimental.model_copy(update={"evaluate_rounds": "last"}),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            h2tune.run(federation, out=Path(folder) / "run")
        except FirstBatchError:
            return time.perf_counter() - start
    raise RuntimeError("it never trained")


def measure(model: str, basis: str, shared: Path) -> float:
    """Return the seconds of one turn; "again" uses the readings of an earlier turn."""
    kind = basis.partition(",")[0]
    if basis.endswith("again"):
        if not shared.exists():
            in_process(seconds, model, kind, shared)
        return in_process(seconds, model, kind, shared)
    with tempfile.TemporaryDirectory() as fresh:
        return in_process(seconds, model, kind, Path(fresh))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(clients.MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            shared = Path(folder) / "readings"
            work = {b: lambda b=b, m=model, s=shared: measure(m, b, s) for b in BASES}
            values = in_turn(work, options.repeats)
        rows.append([model, *(Spread.of(values[b]).text(1) for b in BASES)])
        print(rows[-1], flush=True)
    print(table(["model", *(f"{b} basis, s" for b in BASES)], rows))


if __name__ == "__main__":
    main()
