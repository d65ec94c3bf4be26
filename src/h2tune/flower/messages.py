"""The content of a Flower message: a JSON head, and tensors as one safetensors file, which Flower splits into chunks.

Imports nothing heavy: the process that Flower starts for a message may only pass it to the worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from h2tune.federation.messages import Update

FORMAT = "h2tune-3"
ENROL = "query.enrol"
TRAIN = "train"
WHY = "why"
"""Why a member takes no teacher, which is no failure; "reason" in an answer's head means one."""
HEAD_CHARACTERS = 2**23
"""The largest JSON head of a message, which has a client's events."""
REMEDY = "Give all parties one version of h2tune"


def pack(head: Mapping[str, Any], update: Update | None = None) -> RecordDict:
    """Return a message's content; in both directions tensors are encoded as an update."""
    from h2tune.federation.messages import to_bytes

    return wrapped(json.dumps(head), None if update is None else to_bytes(update))


def unpack(content: RecordDict, most: int | None = None) -> tuple[dict[str, Any], Update | None]:
    """Return head and update of a message's content; nothing is unpickled.

    Args:
        content: The message's content.
        most: The most bytes of tensors that it may hold; by default any.

    Raises:
        H2TuneError: It is not a message of h2tune, or a larger one.
    """
    from h2tune.federation.messages import from_bytes

    head, tensors = parts(content)
    return read_head(head), None if tensors is None else from_bytes(tensors, most)


def wrapped(head: str, tensors: bytes | None) -> RecordDict:
    """Return the content of a message: JSON, and a safetensors file."""
    content = RecordDict({"head": ConfigRecord({"format": FORMAT, "json": head})})
    if tensors is not None:
        content["tensors"] = ArrayRecord({"file": Array("uint8", (len(tensors),), "safetensors", tensors)})
    return content


def parts(content: RecordDict) -> tuple[str, bytes | None]:
    """Return JSON and safetensors file of a message's content, neither of them parsed.

    Raises:
        H2TuneError: It is not a message of h2tune, or its head is too long.
    """
    try:
        record = content.config_records["head"]
        if record["format"] != FORMAT:
            raise ValueError(f"format {str(record['format'])[:40]!r}")
        if not isinstance(record["json"], str) or len(record["json"]) > HEAD_CHARACTERS:
            raise ValueError(f"its head is not a text of at most {HEAD_CHARACTERS} characters")
        tensors = content.array_records.get("tensors")
        return record["json"], None if tensors is None else tensors["file"].data
    except (KeyError, ValueError, TypeError) as error:
        raise H2TuneError(f"malformed message ({error})", remedy=REMEDY) from None


def read_head(head: str) -> dict[str, Any]:
    """Parse the JSON head of a message.

    Raises:
        H2TuneError: It is not an object.
    """
    try:
        content = json.loads(head)
        if not isinstance(content, dict):
            raise ValueError("its head is not an object")
        return content
    except (ValueError, RecursionError) as error:
        raise H2TuneError(f"malformed message ({error})", remedy=REMEDY) from None


def text(head: Mapping[str, Any], key: str) -> str:
    """Return a head's entry that must be text.

    Raises:
        H2TuneError: It is missing, or not text.
    """
    value = head.get(key)
    if not isinstance(value, str):
        raise H2TuneError(f"malformed message (no '{key}')", remedy=REMEDY)
    return value
