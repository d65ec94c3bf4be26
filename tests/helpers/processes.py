"""The command line in separate processes, without importing torch in each of them.

A server process imports h2tune once and forks the others: each has its own memory, can be killed, and runs
the command line as the installed command does. `tests/e2e/test_run.py` runs the installed command itself as well.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

SOURCE = Path(__file__).resolve().parents[2] / "src"
PRELOADED = [
    "h2tune.cli.main",
    "h2tune.runs.run",
    "h2tune.runs.results",
    "h2tune.report",
    "h2tune.compare",
    "h2tune.cli.display",
]


def environment() -> dict[str, str]:
    """Return the environment of such a process: one thread, no network."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(arguments: tuple[str, ...], output: Path, before: Callable[[], None] | None = None) -> BaseProcess:
    """Start the command line; standard output and error go to `output`.out and `output`.err.

    Args:
        arguments: Those of the command line.
        output: Where the output goes.
        before: Called in the process before the command, such as `pause_at`.
    """
    process = _server().Process(target=_run, args=(arguments, str(output), before))
    process.start()
    return process


def pause_at(where: str, mark: Path) -> Callable[[], None]:
    """Return a callable with which a process touches `mark` and sleeps in training, aggregation, writing or logging."""
    return functools.partial(_pause, where, mark)


def record_stage(file: Path) -> Callable[[], None]:
    """Return a callable with which a process writes the name of its current stage into `file`; see `STAGES`."""
    return functools.partial(_record_stage, file)


STAGES = {
    "training": (("h2tune.federation.client_round.ClientRound", "run"),),
    "aggregating": (("h2tune.federation.h2tune.strategy.H2Tune", "aggregate"),),
    "saving": (
        ("h2tune.federation.run_store.RunStore", "commit"),
        ("h2tune.federation.run_store.RunStore", "record"),
        ("h2tune.runs.run", "export_adapters"),
    ),
    "reporting": (("h2tune.report", "write_report"),),
}


def _record_stage(file: Path) -> None:
    import pkgutil

    mark, doing = os.open(file, os.O_WRONLY | os.O_CREAT), ["between"]

    def write_stage() -> None:
        os.pwrite(mark, doing[-1].ljust(16).encode(), 0)

    def recording(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            doing.append(stage)
            write_stage()
            try:
                return function(*arguments, **named)
            finally:
                doing.pop()
                write_stage()

        return wrapped

    write_stage()
    for stage, places in STAGES.items():
        for owner, name in places:
            found = pkgutil.resolve_name(owner)
            setattr(found, name, recording(getattr(found, name), stage))


def _pause(where: str, mark: Path) -> None:
    from h2tune.federation import run_store
    from h2tune.federation.h2tune import strategy
    from h2tune.training import trainer

    def stop(function: Callable[..., Any], after: int) -> Callable[..., Any]:
        calls = []

        def wrapped(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) > after:
                mark.touch()
                time.sleep(600)
            return function(*arguments, **named)

        return wrapped

    owner, name, after = {
        "training": (trainer._Phases, "on_step_end", 10),
        "aggregation": (strategy.Sums, "step", 1),
        "writing": (run_store, "safetensors_save", 6),
        "logging": (os, "fsync", 30),
    }[where]
    setattr(owner, name, stop(getattr(owner, name), after))


@functools.cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, environment()):
        context.Process(target=_nothing).start()  # starts the server, which keeps this environment
    return context


def _nothing() -> None:
    pass


def _run(arguments: tuple[str, ...], output: str, before: Callable[[], None] | None) -> None:
    for number, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["h2tune", *arguments]
    if before is not None:
        before()
    from h2tune.cli.main import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
