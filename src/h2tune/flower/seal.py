"""Sealed answers: each echoes the number of the message it answers, and is signed with the key of the member's node.

Flower checks that an answer comes from a registered node, and not that it is the node to which the message was sent
(1.41). So the coordinator puts a fresh number of 128 bits into every message, and accepts an answer only with the same
number and with a signature over number, head and tensors, by the key that the member's name is bound to. Imports
nothing heavy.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from pathlib import Path

from flwr.app import RecordDict

from h2tune.errors import H2TuneError
from h2tune.flower.messages import FORMAT, parts, read_head
from h2tune.flower.signing import is_signed, sign

NONCE, SIGNATURE = "nonce", "signature"
"""Entries of a message's head record."""


def number(content: RecordDict) -> str:
    """Put a fresh number into a message, and return it."""
    nonce = secrets.token_hex(16)
    content.config_records["head"][NONCE] = nonce
    return nonce


def seal(answer: RecordDict, message: RecordDict, key: Path | None) -> RecordDict:
    """Return an answer with the number of the message, signed if there is a key.

    Args:
        answer: The answer.
        message: The message that it answers.
        key: File of the node's private key, as ssh-keygen wrote it.

    Raises:
        H2TuneError: The key cannot be used.
    """
    nonce = _entry(message, NONCE)
    record = answer.config_records["head"]
    record[NONCE] = nonce
    if key is not None:
        record[SIGNATURE] = sign(_statement(answer, nonce), key)
    return answer


def fault(answer: RecordDict, nonce: str, key: bytes) -> str:
    """Return what is wrong with an answer's seal, or "".

    Args:
        answer: The answer.
        nonce: Number of the message.
        key: The public key (PEM) that must have signed it; empty where nodes have no keys.
    """
    try:
        head, _ = parts(answer)  # first of all: a member of another version sends no number
    except H2TuneError as error:
        return str(error)
    if not secrets.compare_digest(_entry(answer, NONCE).encode(), nonce.encode()):
        return "an answer does not have the number of its message"
    if not key:
        return ""
    signature = _entry(answer, SIGNATURE)
    if not signature:
        return f'an answer is not signed (has the member\'s file `key = "node"`?){_said(head)}'
    statement = _statement(answer, nonce)
    return "" if is_signed(statement, signature, key) else "an answer is signed with another key"


def _said(head: str) -> str:
    """Return the reason that an answer without a signature gives in place of an answer; only for the log."""
    with contextlib.suppress(H2TuneError):
        reason = read_head(head).get("reason")
        if isinstance(reason, str):
            return f"; it says: {reason[:200]}"
    return ""


def _entry(content: RecordDict, name: str) -> str:
    """Return an entry of a message's head record; "" where it is missing or no text."""
    record = content.config_records.get("head")
    value = None if record is None else record.get(name)
    return value if isinstance(value, str) else ""


def _statement(answer: RecordDict, nonce: str) -> bytes:
    head, tensors = parts(answer)
    digests = (hashlib.sha256(part).hexdigest() for part in (head.encode(), tensors or b""))
    return "\n".join((FORMAT, nonce, *digests)).encode()
