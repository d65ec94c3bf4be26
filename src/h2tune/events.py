"""Events: what a run records in `events.jsonl`, one JSON object a line; the report's only source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

Event = dict[str, Any]


def read_events(path: Path) -> list[Event]:
    """Return the events of a run, in order; a last line that was not written to its end is left out.

    Raises:
        H2TuneError: The file cannot be read, or a line other than the last is no event.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise H2TuneError(
            f"cannot be read ({error.strerror})", where=str(path), remedy="Give the folder of a run"
        ) from None
    events = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode())
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("no event")
        except (ValueError, RecursionError):
            if line_number == len(lines):
                break
            raise H2TuneError(
                "this line is no event",
                where=f"{path}, line {line_number}",
                remedy="The file was altered after the run wrote it; restore it, or delete the line",
            ) from None
        events.append(event)
    return events
