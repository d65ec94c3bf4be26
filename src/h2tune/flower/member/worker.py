"""A worker beside the SuperNode: one process that keeps libraries and the base model in memory between messages.

Both ends of a Unix socket in the member's folder, which only the member's user can open. It carries what Flower
carried: JSON and a safetensors file. The client end imports nothing heavy.
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
"""The most bytes of a message's first line."""
STALLED = 300.0
"""Seconds after which an idle connection times out, as other messages wait for it."""
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading raises if the other end closed the connection, or does not speak this protocol."""
Respond = Callable[[str, Path, str, bytes | None], tuple[str, bytes | None]]
"""`handlers.respond`, which only the worker's end imports."""


def ask(file: Path, kind: str, head: str, tensors: bytes | None) -> tuple[str, bytes | None] | None:
    """Return the answer of the worker beside a member's file; None if no worker runs or its answer is lost.

    Args:
        file: The member's file.
        kind: Kind of the message.
        head: The message's JSON.
        tensors: Its safetensors file.
    """
    path = file.resolve().parent / SOCKET
    if not path.is_socket():
        return None
    try:
        with socket.socket(socket.AF_UNIX) as end, short_address(path) as address:
            end.connect(address)
            if _user(end) != os.getuid():
                raise OSError("it runs as another user")
            _send(end, {"version": __version__, "kind": kind, "file": str(file.resolve())}, head, tensors)
            facts, answer, answer_tensors = _receive(end)
            if facts.get("version") != __version__:
                raise OSError(f"its version is {facts.get('version')}, not {__version__}: restart it")
            return answer, answer_tensors
    except MALFORMED as error:
        print(
            f"h2tune: the worker at {path} does not answer ({error}); continuing without it", file=sys.stderr
        )
        return None


def refusal(reason: str) -> tuple[str, bytes | None]:
    """Return an encoded answer that is a reason alone."""
    return json.dumps({"reason": reason}), None


def serve(file: Path, notify: Callable[[str], None], ready: Callable[[], None] = lambda: None) -> None:
    """Answer a member's messages, one after another, until the process is stopped.

    Args:
        file: The member's file.
        notify: Called with a line for each message.
        ready: Called when the worker accepts messages.

    Raises:
        H2TuneError: The file cannot be used, or another worker runs beside it.
    """
    from h2tune.flower.load import load_member_file, member_client

    member_client(load_member_file(file), file)
    from h2tune.federation.local_engine import BaseModels
    from h2tune.flower.member.handlers import respond
    from h2tune.training.garbage import garbage_collection_frozen

    models = BaseModels(0)
    with _listening(file.resolve().parent / SOCKET) as listener, garbage_collection_frozen():
        notify(f"ready: {file}")
        ready()
        while True:
            end, _ = listener.accept()
            try:
                with end:
                    _answer(end, file, partial(respond, models=models), notify)
            except MALFORMED as error:  # the client's process is gone; the coordinator retries
                notify(f"a message was lost: {error}")


def _answer(end: socket.socket, file: Path, respond: Respond, notify: Callable[[str], None]) -> None:
    """Answer one message, if it is from this user and for this member.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: See `MALFORMED`.
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
    answer = respond(str(facts.get("kind")), file, head, tensors)
    notify(f"{facts.get('kind')}: {time.perf_counter() - began:.1f} s")
    _send(end, {"version": __version__}, *answer)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """Yield a listening socket that only its user can open; it is removed after the block.

    Raises:
        H2TuneError: Another worker listens there.
    """
    with (
        socket.socket(socket.AF_UNIX) as other,
        short_address(path) as address,
        contextlib.suppress(OSError),
    ):
        other.connect(address)
        raise H2TuneError("a worker is running already", where=str(path))
    path.unlink(missing_ok=True)  # a killed worker leaves it behind
    before = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX)
        with short_address(path) as address:
            listener.bind(address)
    finally:
        os.umask(before)
    with listener:
        listener.listen()
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield a short path to a socket: Linux allows 107 bytes, and a member's folder may have a longer path."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _user(end: socket.socket) -> int:
    """Return the user of the process at the other end."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _send(end: socket.socket, facts: dict[str, Any], head: str, tensors: bytes | None) -> None:
    text = head.encode()
    sizes = {"head": len(text), "tensors": None if tensors is None else len(tensors)}
    end.sendall(json.dumps(facts | sizes).encode() + b"\n" + text)
    if tensors is not None:
        end.sendall(tensors)


def _receive(end: socket.socket) -> tuple[dict[str, Any], str, bytes | None]:
    """Return what `_send` sent.

    Raises:
        OSError: The other end closed the connection before everything was sent.
        ValueError: The first line is not JSON.
    """
    with end.makefile("rb") as stream:
        facts = json.loads(stream.readline(HEADER) or _closed())
        head, size = _read(stream, int(facts["head"])), facts["tensors"]
        return facts, head.decode(), None if size is None else _read(stream, int(size))


def _read(stream: Any, count: int) -> bytes:
    data: bytes = stream.read(count)
    return data if len(data) == count else _closed()


def _closed() -> bytes:
    raise OSError("it closed the connection")
