"""A member's record of its answers: what was asked, under which settings, and checksums of all that leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from h2tune.files import sha256
from h2tune.flower import audit

ASKED = ("client", "experiment", "round")
"""Entries of a message that the record repeats, where they are texts or numbers."""
LONGEST = 200
"""Characters that are kept of a text from the message."""
MOST_METADATA = 10_000_000
"""Bytes of the head of a safetensors file that is read."""


def log_answer(
    log: Path,
    kind: str,
    message: tuple[str, bytes | None],
    answer: tuple[str, bytes | None],
    key: Path | None,
) -> None:
    """Append an answer to the audit log, before it leaves.

    Args:
        log: The log.
        kind: Kind of the message.
        message: The message's JSON and its safetensors file or None, not checked.
        answer: The answer's JSON, and its safetensors file or None.
        key: File of the private key that signs the entry.

    Raises:
        H2TuneError: The key cannot be used.
        OSError: The log cannot be written.
    """
    asked, said = _object(message[0]) | _metadata(message[1]), _object(answer[0])
    facts: dict[str, Any] = {"message": kind}
    facts |= {name: _short(asked[name]) for name in ASKED if name in asked}
    if isinstance(settings := asked.get("settings"), str):
        facts["settings"] = sha256(_bytes(settings))
    if "reason" in said:
        facts["reason"] = _short(said["reason"])
    facts["sent"] = {"bytes": len(_bytes(answer[0])), "sha256": sha256(_bytes(answer[0]))}
    if answer[1] is not None:
        facts["tensors"] = {"bytes": len(answer[1]), "sha256": sha256(answer[1])}
    audit.append(log, "refused" if "reason" in said else "answered", key, **facts)


def is_refusal(answer: tuple[str, bytes | None]) -> bool:
    """Return whether an answer is a reason alone."""
    return answer[1] is None and "reason" in _object(answer[0])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _metadata(tensors: bytes | None) -> dict[str, Any]:
    """Return the texts beside the tensors of a message, which name the client and the round; {} if it has none."""
    size = int.from_bytes((tensors or b"")[:8], "little")
    if tensors is None or size > MOST_METADATA:
        return {}
    try:
        found = _object(tensors[8 : 8 + size].decode()).get("__metadata__")
    except UnicodeDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str | int:
    return value if isinstance(value, int) else _bytes(str(value)[:LONGEST]).decode("utf-8", "replace")
