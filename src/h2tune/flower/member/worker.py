"""A worker beside the SuperNode: one process that keeps libraries and the base model in memory from message to message.

Both ends of a socket in the member's folder, which nobody but its user may open. What crosses it is what Flower
carried: JSON and a safetensors file. The asking end imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from h2tune._version import __version__
from h2tune.errors import H2TuneError

SOCKET = "worker.sock"
HEADER = 4096
"""Bytes that a message's first line may have."""
STALLED = 300.0
"""Seconds for which the asking end may neither send nor take anything, or others would wait for ever."""
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading raises if the other end is gone, or is no end of ours."""
Answered = Callable[[str, Path, str, bytes | None], tuple[str, bytes | None]]
"""`duties.answered`, which this module imports only where it is at work."""


def ask(file: Path, kind: str, head: str, tensors: bytes | None) -> tuple[str, bytes | None] | None:
    """Return what the worker beside a member's file answers, or None where there is none, or it was lost.

    Args:
        file: The member's file.
        kind: What is asked.
        head: The message's JSON.
        tensors: Its safetensors file.
    """
    name = file.resolve().parent / SOCKET
    if not name.is_socket():
        return None
    try:
        with socket.socket(socket.AF_UNIX) as end, _address(name) as short:
            end.connect(short)
            if _user(end) != os.getuid():
                raise OSError("it is another user's")
            _send(end, {"version": __version__, "kind": kind, "file": str(file.resolve())}, head, tensors)
            facts, told, found = _receive(end)
            if facts.get("version") != __version__:
                raise OSError(
                    f"it is of version {facts.get('version')}, this is {__version__}: start it again"
                )
            return told, found
    except MALFORMED as error:
        print(f"h2tune: the worker at {name} does not answer ({error}); done without it", file=sys.stderr)
        return None


def refused(reason: str) -> tuple[str, bytes | None]:
    """Return the answer that gives a reason and nothing else."""
    return json.dumps({"reason": reason}), None


def serve(file: Path, tell: Callable[[str], None], ready: Callable[[], None] = lambda: None) -> None:
    """Answer the messages to a member, one after another, until the process is stopped.

    Args:
        file: The member's file.
        tell: Called with a line about what is done.
        ready: Called when messages are awaited.

    Raises:
        H2TuneError: The file cannot be used, or a worker is there already.
    """
    from h2tune.federation.local_engine import BaseModels
    from h2tune.flower.files import load_member_file
    from h2tune.flower.member.handlers import answered
    from h2tune.training.local import unscanned

    load_member_file(file)
    models = BaseModels(0)
    with _listening(file.resolve().parent / SOCKET) as listener, unscanned():
        tell(f"ready: {file}")
        ready()
        while True:
            end, _ = listener.accept()
            try:
                with end:
                    _answer(end, file, partial(answered, models=models), tell)
            except MALFORMED as error:  # who asked is gone; its node asks again
                tell(f"a message was lost: {error}")


def _answer(end: socket.socket, file: Path, answered: Answered, tell: Callable[[str], None]) -> None:
    """Answer one message, if it is of this user and to this member.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: The other end is gone, or is no end of ours.
    """
    if _user(end) != os.getuid():
        return
    end.settimeout(STALLED)
    facts, head, tensors = _receive(end)
    if facts.get("file") != str(file.resolve()):
        return
    if facts.get("version") != __version__:
        _send(end, {"version": __version__}, "", None)
        return
    began = time.perf_counter()
    found = answered(str(facts.get("kind")), file, head, tensors)
    tell(f"{facts.get('kind')}: {time.perf_counter() - began:.1f} s")
    _send(end, {"version": __version__}, *found)


@contextlib.contextmanager
def _listening(name: Path) -> Iterator[socket.socket]:
    """Yield a socket that its user alone may open; it is gone after the block.

    Raises:
        H2TuneError: Another worker listens there.
    """
    with socket.socket(socket.AF_UNIX) as other, _address(name) as short, contextlib.suppress(OSError):
        other.connect(short)
        raise H2TuneError("a worker is running already", where=str(name))
    name.unlink(missing_ok=True)  # one that was killed leaves it behind
    before = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX)
        with _address(name) as short:
            listener.bind(short)
    finally:
        os.umask(before)
    with listener:
        listener.listen()
        try:
            yield listener
        finally:
            name.unlink(missing_ok=True)


@contextlib.contextmanager
def _address(name: Path) -> Iterator[str]:
    """Yield a short path to a socket: Linux takes 107 bytes at most, and a member's folder may lie deep."""
    folder = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name.name}"
    finally:
        os.close(folder)


def _user(end: socket.socket) -> int:
    """Return the user of the process at the other end."""
    found = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


def _send(end: socket.socket, facts: dict[str, Any], head: str, tensors: bytes | None) -> None:
    text = head.encode()
    sizes = {"head": len(text), "tensors": None if tensors is None else len(tensors)}
    end.sendall(json.dumps(facts | sizes).encode() + b"\n" + text)
    if tensors is not None:
        end.sendall(tensors)


def _receive(end: socket.socket) -> tuple[dict[str, Any], str, bytes | None]:
    """Return what `_send` sent.

    Raises:
        OSError: The other end closed before all was there.
        ValueError: It is no such message.
    """
    with end.makefile("rb") as stream:
        facts = json.loads(stream.readline(HEADER) or _closed())
        head, size = _exactly(stream, int(facts["head"])), facts["tensors"]
        return facts, head.decode(), None if size is None else _exactly(stream, int(size))


def _exactly(stream: Any, count: int) -> bytes:
    found: bytes = stream.read(count)
    return found if len(found) == count else _closed()


def _closed() -> bytes:
    raise OSError("it closed the connection")
