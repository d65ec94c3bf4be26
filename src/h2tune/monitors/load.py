"""Monitors by name, and the user's own by `module:object`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from h2tune import own_code
from h2tune.errors import H2TuneError, nearest
from h2tune.monitors.monitor import Monitor, Monitors

KNOWN = ("tensorboard", "wandb")


def check_name(name: str) -> str:
    """Return the name of a monitor.

    Raises:
        ValueError: It is none, nor of the form `module:object`.
    """
    if name not in KNOWN and not own_code.is_reference(name):
        raise ValueError(
            f"no monitor '{name}'{nearest(name, KNOWN)}; use {', '.join(KNOWN)}, or module:object with one of your own"
        )
    return name


MonitorName = Annotated[str, AfterValidator(check_name)]
"""A monitor in a federation file."""


def monitors_of(given: Sequence[str | Monitor]) -> Monitors:
    """Return monitors as one, each checked.

    Args:
        given: Names, references, or monitors.

    Raises:
        H2TuneError: One is no monitor, or cannot work on this machine.
    """
    monitors = Monitors([_monitor(one) if isinstance(one, str) else one for one in given])
    monitors.check()
    return monitors


def _monitor(name: str) -> Monitor:
    if name in KNOWN:
        from h2tune.monitors.trackers import TensorBoard, WeightsAndBiases

        return TensorBoard() if name == "tensorboard" else WeightsAndBiases()
    found = own_code.load(name, "monitors")
    monitor = found() if isinstance(found, type) else found
    if not isinstance(monitor, Monitor):
        raise H2TuneError(
            f"'{own_code.short(name)}' is no monitor",
            where="monitors",
            remedy="Name a subclass of h2tune.Monitor that takes no arguments, or an object of one",
        )
    return monitor


@contextlib.contextmanager
def watching(monitor: Monitor, folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Let a monitor watch a run in a block; arguments as in `Monitor.on_begin`."""
    monitor.on_begin(folder, settings)
    finished = False
    try:
        yield
        finished = True
    finally:
        monitor.on_end(finished)
