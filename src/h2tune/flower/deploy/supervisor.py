"""Processes of a party that start in order and end together; their output goes into files that are rotated."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from h2tune.errors import H2TuneError

LOG_BYTES, LOG_COPIES = 10_000_000, 5
"""A log file is renamed to `.1` at this size; so many renamed ones are kept."""
GRACE = 20.0
"""Seconds between SIGTERM and SIGKILL."""
LOOK = 0.2
"""Seconds between looks at the processes."""
TAIL = 5
"""Lines of a process's output that an error message quotes."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Child:
    """A process of a party.

    Args:
        name: Name of its log file, and in messages.
        command: What it runs.
        folder: Where it runs; its log is in `logs/` there.
        environment: Its environment.
        heard: Called with each line of its output.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        heard: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name, self.heard = name, heard
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.log = folder / "logs" / f"{name}.log"
        self._file = _log_file(self.log)
        self.process = subprocess.Popen(  # noqa: S603 - no shell
            with_parent(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on the terminal reaches the supervisor alone, which ends it in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is None:
            return
        with self.process.stdout as output, contextlib.closing(self._file):
            for raw in output:
                line = COLOURS.sub("", raw.decode(errors="replace")).rstrip()
                self._file.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
                if line.strip():
                    self.tail.append(line)
                    self.heard(line)

    @property
    def ended(self) -> bool:
        """Whether it has ended; all of its output is then in its log."""
        if self.process.poll() is None:
            return False
        self._reader.join(5)
        return True

    def failure(self) -> H2TuneError:
        """Return what to say about a process that should run and does not."""
        said = " | ".join(line.strip() for line in self.tail)
        return H2TuneError(
            f"ended with status {self.process.returncode}" + (f": {said}" if said else ""),
            where=self.name,
            remedy=f"Its log is {self.log}",
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Group:
    """Processes that end together, in the reverse of the order in which they started.

    Args:
        folder: The party's folder.
        environment: Their environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.children: list[Child] = []
        (folder / "logs").mkdir(exist_ok=True)

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self, name: str, command: Sequence[str], heard: Callable[[str], None] = lambda line: None
    ) -> Child:
        """Start a process.

        Args:
            name: Name of its log file, and in messages.
            command: What it runs.
            heard: Called with each line of its output.
        """
        self.children = [child for child in self.children if not child.ended]
        self.children.append(Child(name, command, self.folder, self.environment, heard))
        return self.children[-1]

    def output(self, command: Sequence[str], seconds: float) -> str:
        """Return the standard output of a command that ends by itself.

        Raises:
            H2TuneError: It failed, with what it said, or took too long.
        """
        try:
            done = subprocess.run(  # noqa: S603 - no shell
                with_parent(command),
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise H2TuneError(f"did not end within {seconds:.0f} s", where=Path(command[0]).name) from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            raise H2TuneError(said[-1].removeprefix("h2tune: ").removesuffix("."))
        return done.stdout

    def until(self, condition: Callable[[], bool], child: Child, seconds: float) -> None:
        """Wait for a condition that a process brings about.

        Raises:
            H2TuneError: The process ended, or it took too long.
        """
        end = time.monotonic() + seconds
        while not condition():
            if child.ended:
                raise child.failure()
            if time.monotonic() > end:
                raise H2TuneError(
                    f"was not ready within {seconds:.0f} s",
                    where=child.name,
                    remedy=f"Its log is {child.log}",
                )
            time.sleep(LOOK)

    def stop(self) -> None:
        """End all processes: SIGTERM, then SIGKILL. Signals to this process wait until then."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for child in reversed(self.children):
                child.signal(signal.SIGTERM)
            end = time.monotonic() + GRACE
            while not all(child.ended for child in self.children) and time.monotonic() < end:
                time.sleep(LOOK)
            for child in self.children:  # what is left of its group, too
                child.signal(signal.SIGKILL)
                child.process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that ends with this process."""
    return [sys.executable, "-P", "-m", "h2tune.flower.deploy.child", str(os.getpid()), *command]


def _log_file(path: Path) -> logging.Handler:
    handler = _Rotated(path, maxBytes=LOG_BYTES, backupCount=LOG_COPIES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return handler


class _Rotated(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: a full disk costs lines of a log, and must not stop who reads a process's output."""
