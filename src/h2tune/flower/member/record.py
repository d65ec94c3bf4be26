"""A member's record of its answers: what was asked, under which settings, and checksums of all that leaves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from h2tune.flower import audit

ASKED = ("client", "experiment", "round")
"""Entries of a message that the record repeats, where they are texts or numbers."""
LONGEST = 200
"""Characters that are kept of a text from the message."""


def log_answer(log: Path, kind: str, head: str, answer: tuple[str, bytes | None], key: Path | None) -> None:
    """Append an answer to the audit log, before it leaves.

    Args:
        log: The log.
        kind: Kind of the message.
        head: The message's JSON, not checked.
        answer: The answer's JSON, and its safetensors file or None.
        key: File of the private key that signs the entry.

    Raises:
        H2TuneError: The key cannot be used.
        OSError: The log cannot be written.
    """
    asked, said = _object(head), _object(answer[0])
    facts: dict[str, Any] = {"message": kind}
    facts |= {name: _short(asked[name]) for name in ASKED if name in asked}
    if isinstance(settings := asked.get("settings"), str):
        facts["settings"] = _sum(settings.encode())
    if "reason" in said:
        facts["reason"] = _short(said["reason"])
    facts["sent"] = {"bytes": len(answer[0].encode()), "sha256": _sum(answer[0].encode())}
    if answer[1] is not None:
        facts["tensors"] = {"bytes": len(answer[1]), "sha256": _sum(answer[1])}
    audit.append(log, "refused" if "reason" in said else "answered", key, **facts)


def is_refusal(answer: tuple[str, bytes | None]) -> bool:
    """Return whether an answer is a reason alone."""
    return answer[1] is None and "reason" in _object(answer[0])


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str | int:
    return value if isinstance(value, int) else str(value)[:LONGEST]
