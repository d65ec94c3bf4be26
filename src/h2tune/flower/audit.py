"""A party's audit log: one JSON line an entry, each with the checksum of the line before, signed with the party's key.

A line that is altered, left out or inserted breaks the chain; the signature shows by whose key it was written. Whoever
holds that key can still write a new log from the start: keep a copy of its last line elsewhere. Imports nothing heavy.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.files import sha256
from h2tune.flower.signing import is_signed, sign

FILE = "audit.jsonl"
START = "0" * 64
"""The checksum before the first line."""


def append(path: Path, kind: str, key: Path | None = None, **facts: Any) -> None:
    """Append an entry, flushed to disk before this returns.

    Args:
        path: The log.
        kind: What happened, such as "answered".
        key: File of the private key that signs it; None for no signature.
        facts: JSON values.

    Raises:
        H2TuneError: The key cannot be used.
        OSError: The log cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        last = _last_line(stream)
        if last and not last.endswith(b"\n"):  # a crash cut it off
            stream.write(b"\n")
            last += b"\n"
        entry = {"kind": kind, **facts, "time": round(time.time(), 3), "previous": checksum(last)}
        if key is not None:
            entry["signature"] = sign(_statement(entry), key)
        stream.write(json.dumps(entry).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def checksum(line: bytes) -> str:
    """Return the SHA-256 of a line of the log; of no line, zeros."""
    return sha256(line) if line else START


@dataclass
class Verified:
    """What a log holds.

    Args:
        entries: Its entries, in order.
        faults: One line for each that is wrong, with its number from 1.
        signed: Number of entries with a valid signature of the given key.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    signed: int = 0


def verify(path: Path, key: bytes = b"") -> Verified:
    """Read a log and check its chain, and with a key its signatures.

    Args:
        path: The log.
        key: The public key that must have signed every entry; empty to check the chain alone.

    Raises:
        H2TuneError: The log cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise H2TuneError(f"cannot be read ({error.strerror})", where=str(path)) from None
    found, before = Verified(), b""
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None:
            found.faults.append(f"line {number} is no entry, or was cut off by a crash")
        else:
            if entry.get("previous") != checksum(before):
                found.faults.append(f"line {number} does not follow the line before it")
            signature = entry.pop("signature", "")
            if key and not is_signed(_statement(entry), str(signature), key):
                found.faults.append(f"line {number} is not signed with this key")
            elif key:
                found.signed += 1
            found.entries.append(entry)
        before = line
    return found


def follow(events: Path, log: Path, key: Path | None = None) -> Callable[[str], None]:
    """Return what to call with each line that is appended to a run's events, so that the log has an entry for each.

    Lines that a crash kept out of the log are added first. The lines of the last unit, which a restart takes back and
    writes again, are marked as withdrawn. Any other difference of the two files is left as it is, for `verify` to find.

    Args:
        events: The run's `events.jsonl`.
        log: The audit log.
        key: File of the private key that signs it.
    """

    def note(line: str) -> None:
        event = json.loads(line)
        facts = {name: event[name] for name in ("event", "client", "round", "unit") if name in event}
        append(log, "event", key, **facts, line=sha256(line.encode()))

    lines, logged = _lines(events), _followed(verify(log)) if log.exists() else {}
    common = 0
    for one, other in zip(lines, logged, strict=False):
        if one != other:
            break
        common += 1
    gone, added = list(logged)[common:], list(lines)[common:]
    units = {logged[line] for line in gone}
    if len(units) <= 1 and not set(gone) & set(added):
        for line in gone:
            append(log, "withdrawn", key, line=line)
        for line in added:
            note(lines[line])
    return note


def missing_events(events: Path, found: Verified) -> list[str]:
    """Return one line for each event of a run that its audit log does not have, and for each that the run lost."""
    present, logged = list(_lines(events)), list(_followed(found))
    faults = [f"event {n} is not in the audit log" for n, s in enumerate(present, 1) if s not in logged]
    return faults + [
        f"event {n} of the audit log is gone" for n, s in enumerate(logged, 1) if s not in present
    ]


def _lines(events: Path) -> dict[str, str]:
    """Return the lines of a run's events by their checksums."""
    lines = events.read_text(encoding="utf-8").splitlines(keepends=True) if events.exists() else []
    return {sha256(line.encode()): line for line in lines}


def _followed(found: Verified) -> dict[str, str]:
    """Return the checksums of the events that a log has, with their units, without those that were withdrawn."""
    logged: dict[str, str] = {}
    for entry in found.entries:
        if entry.get("kind") == "event":
            logged[str(entry.get("line"))] = str(entry.get("unit"))
        elif entry.get("kind") == "withdrawn":
            logged.pop(str(entry.get("line")), None)
    return logged


def _statement(entry: dict[str, Any]) -> bytes:
    """Return what is signed: the entry without its signature."""
    return json.dumps({name: value for name, value in entry.items() if name != "signature"}).encode()


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _last_line(stream: Any) -> bytes:
    """Return the last line of an open file, with its end; the file is left at its end."""
    stream.seek(0, os.SEEK_END)
    position, tail = stream.tell(), b""
    while position > 0 and tail.rstrip(b"\n").count(b"\n") == 0:
        step = min(position, 65_536)
        position -= step
        stream.seek(position)
        tail = stream.read(step) + tail
    stream.seek(0, os.SEEK_END)
    return tail.splitlines(keepends=True)[-1] if tail else b""
