"""Memory and processor time of a process and of all that it starts, from /proc; Linux."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What a tree of processes used.

    Args:
        memory: Peak in MB: private memory of all, and mapped files and shared memory once, as much as the process
            with the most has.
        others: Processor seconds of all processes but the first.
    """

    memory: float = 0.0
    others: float = 0.0


def watched(command: list[str], environment: dict[str, str], log: Path) -> tuple[int, Usage]:
    """Run a command to its end, its output in a file; return its exit status and what its processes used.

    Processes are looked at every 0.25 s, so a shorter peak, or a process that lives less, is not seen.
    """
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        watch = _Watch(process.pid)
        watch.start()
        status = process.wait()
        watch.stopped.set()
        watch.join()
    others = sum(seconds for pid, seconds in watch.seconds.items() if pid != process.pid)
    return status, Usage(watch.peak, others)


class _Watch(threading.Thread):
    """Looks at the processes below one, the first included."""

    def __init__(self, first: int) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.peak, self.seconds = 0.0, {first: 0.0}

    def run(self) -> None:
        while not self.stopped.wait(INTERVAL):
            for pid in list(self.seconds):
                self._add_below(pid)
            found = [_memory(pid) for pid in self.seconds]
            private, files, shared = zip(*found, strict=True)
            self.peak = max(self.peak, sum(private) + max(files) + max(shared))
            for pid in self.seconds:
                self.seconds[pid] = _processor(pid) or self.seconds[pid]

    def _add_below(self, pid: int) -> None:
        for below in _children(pid):
            if below not in self.seconds:
                self.seconds[below] = 0.0
                self._add_below(below)


def _read(path: str) -> str:
    """Return a file below /proc; empty if its process has ended."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
    lists = (_read(f"{thread}/children") for thread in threads)
    return [int(child) for text in lists for child in text.split()]


def _memory(pid: int) -> tuple[float, float, float]:
    """Return a process's private memory, mapped files and shared memory in MB."""
    lines = (line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines())
    values = {key: int(rest.split()[0]) / 1024 for key, _, rest in lines if key.startswith("Rss")}
    return values.get("RssAnon", 0.0), values.get("RssFile", 0.0), values.get("RssShmem", 0.0)


def _processor(pid: int) -> float:
    """Return a process's own seconds in user and system mode; 0 if it has ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0
