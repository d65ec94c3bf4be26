"""Run a generated Python program in a process that can only compute.

The restrictions (`confined` is the child's side):

* a separate process: isolated interpreter, standard library only, no environment but a fixed hash seed, own session,
  an empty read-only working folder, no inherited files;
* limits of the operating system on CPU time, memory, file size, open files and processes; the parent limits wall time
  and output;
* on Linux (x86-64, ARM64) a system call filter that kills the process if it opens a file, a socket, a process or a
  thread, deletes a file, or reads another process; a user other than root, and no network, where the kernel allows;
* the answer is returned as one small JSON object that is validated here; nothing is unpickled or evaluated.

On other systems only the limits apply (and the audit events of Python, which a program can evade): access to files,
network and processes is *not* prevented, so `run_program` raises an error unless `allow_unconfined` is set.
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
    """Limits of a program.

    Args:
        cpu_seconds: Processor time.
        wall_seconds: Wall-clock time, including the start of the interpreter.
        memory_bytes: Address space, including the interpreter's 20 MB.
        output_bytes: Printed text.
        text_bytes: Length of the program.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    memory_bytes: int = 256 * 2**20
    output_bytes: int = 64 * 2**10
    text_bytes: int = 64 * 2**10


@dataclass(frozen=True)
class ProgramResult:
    """The value of a program's variable `answer`, or None and the reason for it."""

    answer: int | float | str | None
    reason: str = ""


def run_program(text: str, *, limits: Limits = Limits(), allow_unconfined: bool = False) -> ProgramResult:
    """Run an untrusted Python program and return the value of its variable `answer`.

    Args:
        text: The program.
        limits: Its limits.
        allow_unconfined: Run it also where the system cannot prevent access to files, network and processes.

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
    message, stopped, status = _run_child(source, limits, allow_unconfined)
    return ProgramResult(None, stopped) if stopped else _parse(message, status)


def _run_child(source: bytes, limits: Limits, allow_unconfined: bool) -> tuple[bytes, str, int]:
    """Run the confined child; return its message, the reason for stopping it or "", and its exit status."""
    settings = {
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "allow_unconfined": allow_unconfined,
    }
    # isolated as by -I, but for the hash seed: with a random one a program that orders a set scores differently
    command = [sys.executable, "-P", "-s", "-S", "-B", "-W", "ignore", str(CHILD), json.dumps(settings)]
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
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        try:
            message, stopped = _listen(child, limits)
        finally:
            # The group, as the child may have forked where the system does not prevent it. It is not reaped yet,
            # so its process id cannot belong to another process.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
    return message, stopped, child.returncode


def _listen(child: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, str]:
    """Return the child's message, and the reason for stopping it, or "" if it ended by itself."""
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
    # Both pipes are closed: the child has ended, or runs on without output. Waiting without reaping keeps its
    # process id reserved until the group is killed.
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return message, ""
        time.sleep(0.001)
    return b"", "wall time"


def _parse(message: bytes, status: int) -> ProgramResult:
    """Validate the child's untrusted message."""
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
    # lone surrogates and terminal control characters must not reach logs and reports
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _unconfined(missing: str) -> H2TuneError:
    return H2TuneError(
        f"generated programs cannot be confined on this system (not enforced: {missing})",
        where="scorer 'program'",
        remedy="Score on Linux (x86-64, ARM64), or pass allow_unconfined=True on a disposable machine",
    )
