"""What a Flower message holds: a JSON head, and tensors as one safetensors file, which Flower cuts into chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from h2tune.errors import H2TuneError
from h2tune.federation.update import Update, from_bytes, to_bytes

FORMAT = "h2tune-1"
ENROL = "query.enrol"
TRAIN = "train"
HEAD_CHARACTERS = 2**23
"""The most that the JSON of a message may take, a member's events among it."""


def pack(head: Mapping[str, Any], update: Update | None = None) -> RecordDict:
    """Return a message's content; tensors travel in the frame of an update, in both directions."""
    content = RecordDict({"head": ConfigRecord({"format": FORMAT, "json": json.dumps(head)})})
    if update is not None:
        data = to_bytes(update)
        content["tensors"] = ArrayRecord({"file": Array("uint8", (len(data),), "safetensors", data)})
    return content


def unpack(content: RecordDict, most: int | None = None) -> tuple[dict[str, Any], Update | None]:
    """Return head and update of a message's content; nothing in it is ever unpickled.

    Args:
        content: The message's content.
        most: The most bytes of tensors that it may hold; by default any.

    Raises:
        H2TuneError: It is no message of h2tune, or a larger one.
    """
    try:
        record = content.config_records["head"]
        if record["format"] != FORMAT:
            raise ValueError(f"format {str(record['format'])[:40]!r}")
        if not isinstance(record["json"], str) or len(record["json"]) > HEAD_CHARACTERS:
            raise ValueError(f"its head is no text of at most {HEAD_CHARACTERS} characters")
        head = json.loads(record["json"])
        if not isinstance(head, dict):
            raise ValueError("its head is no object")
        tensors = content.array_records.get("tensors")
        return head, None if tensors is None else from_bytes(tensors["file"].data, most)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise H2TuneError(
            f"malformed message ({error})", remedy="Give all parties one version of h2tune"
        ) from None


def text(head: Mapping[str, Any], key: str) -> str:
    """Return an entry of a head that must be text.

    Raises:
        H2TuneError: It is not there, or no text.
    """
    value = head.get(key)
    if not isinstance(value, str):
        raise H2TuneError(f"malformed message (no '{key}')", remedy="Give all parties one version of h2tune")
    return value
