"""Run a generated Python program in a process that can do nothing but compute.

What holds it (see `confined` for the child's side):

* a process of its own: isolated interpreter, standard library only, empty environment, own session, an empty
  read-only folder to stand in, no inherited files;
* limits of the operating system on CPU time, memory, file size, open files and processes; the parent limits
  wall time and output;
* on Linux (x86-64, ARM64) a system call filter under which opening a file, a socket, a process or a thread,
  deleting, and reading another process kill it; not root, and without a network where the kernel allows;
* its answer comes back as one small JSON object that is checked here; nothing is unpickled or evaluated.

Elsewhere only the limits hold (and the audit events of Python, which a determined program can evade): files,
network and processes are *not* enforced, so `run_program` refuses unless it is told to go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

CHILD = Path(__file__).with_name("confined.py")
MESSAGE_BYTES = 4096  # an answer is a number or a few words


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Args:
        cpu_seconds: Processor time.
        wall_seconds: Time on the clock, the interpreter's start included.
        memory_bytes: Address space, the interpreter's own 20 MB included.
        output_bytes: Printed text.
        text_bytes: The program itself.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    memory_bytes: int = 256 * 2**20
    output_bytes: int = 64 * 2**10
    text_bytes: int = 64 * 2**10


@dataclass(frozen=True)
class ProgramResult:
    """The value of a program's variable `answer`, or None and the reason why there is none."""

    answer: int | float | str | None
    reason: str = ""


def run_program(text: str, *, limits: Limits = Limits(), allow_unconfined: bool = False) -> ProgramResult:
    """Run a Python program that nobody has read and return what it left in `answer`.

    Args:
        text: The program.
        limits: What it may use.
        allow_unconfined: Go on where the system cannot keep it from files, network and processes.

    Raises:
        H2TuneError: This system cannot confine a program and `allow_unconfined` is false.
    """
    try:
        source = text.encode()
    except UnicodeEncodeError:
        return ProgramResult(None, "not text")
    if len(source) > limits.text_bytes:
        return ProgramResult(None, "too long")
    if os.name != "posix":
        raise _unconfined("CPU time, memory, files, network, processes")
    settings = {
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "allow_unconfined": allow_unconfined,
    }
    command = [sys.executable, "-I", "-S", "-B", "-W", "ignore", str(CHILD), json.dumps(settings)]
    with tempfile.TemporaryDirectory(prefix="h2tune-program-") as folder, tempfile.TemporaryFile() as stdin:
        Path(folder).chmod(0o555)
        stdin.write(source)
        stdin.seek(0)
        child = subprocess.Popen(  # noqa: S603 - our own file; the program is data on standard input
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            message, stopped = _listen(child, limits)
        finally:
            # The group, so that where forking is not enforced the children go too. Not yet waited for, so
            # the number cannot belong to anyone else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
    return ProgramResult(None, stopped) if stopped else _parse(message, child.returncode)


def _listen(child: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, str]:
    """Return the child's message and, if it has to be stopped, why."""
    deadline = time.monotonic() + limits.wall_seconds
    message, printed = b"", 0
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return b"", "wall time"
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    message += data
                else:
                    printed += len(data)
            if len(message) > MESSAGE_BYTES or printed > limits.output_bytes:
                return b"", "output"
    # Both pipes are closed: it has ended, or it goes on with nothing to say. Waiting without reaping keeps
    # its number ours until the group is killed.
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return message, ""
        time.sleep(0.001)
    return b"", "wall time"


def _parse(message: bytes, status: int) -> ProgramResult:
    """Check what the child wrote: it may be anything."""
    if status != 0:
        reasons = {-signal.SIGSYS: "forbidden system call", -signal.SIGXCPU: "CPU time"}
        return ProgramResult(None, reasons.get(status, f"ended with status {status}"))
    try:
        value: Any = json.loads(message)
    except (ValueError, RecursionError):
        return ProgramResult(None, "no answer")
    if not isinstance(value, dict) or len(value) != 1:
        return ProgramResult(None, "no answer")
    ((key, content),) = value.items()
    if key == "answer" and isinstance(content, int | float) and not isinstance(content, bool):
        return ProgramResult(content)
    if not isinstance(content, str):
        return ProgramResult(None, "no answer")
    if key == "unconfined":
        raise _unconfined(_printable(content))
    if key == "answer":
        return ProgramResult(_printable(content))
    return ProgramResult(None, _printable(content)[:200] or "no answer")


def _printable(text: str) -> str:
    # Lone surrogates and terminal controls must not travel on into logs and reports.
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _unconfined(missing: str) -> H2TuneError:
    return H2TuneError(
        f"generated programs cannot be confined on this system (not enforced: {missing})",
        where="scorer 'program'",
        remedy="Score on Linux (x86-64, ARM64), or pass allow_unconfined=True on a machine you can lose",
    )
