"""Seconds side by side, with ratios within each turn; memory of processes of their own; tables."""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 3) -> str:
        """Return it as a cell of a table."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def in_turn(measured: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return the values of each measurement, in alternating order, so that drift cancels."""
    values: dict[str, list[float]] = {name: [] for name in measured}
    for turn in range(repeats):
        names = list(measured) if turn % 2 == 0 else list(reversed(measured))
        for name in names:
            values[name].append(measured[name]())
    return values


def ratios(values: Mapping[str, Sequence[float]], name: str, reference: str) -> Spread:
    """Return the spread of the ratios within turns."""
    return Spread.of([a / b for a, b in zip(values[name], values[reference], strict=True)])


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that one call takes, garbage collected beforehand."""
    gc.collect()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function of a module in a new process; its errors are raised here."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def memory(what: str = "VmHWM") -> float:
    """Return this process's memory in MB: the most it has had, or (VmRSS) what it has; Linux.

    `getrusage` would count the parent's as well, which a new process starts from.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
