"""Reading a run's events; what was taken back is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

Event = dict[str, Any]
"""An event as it is read back, whose content is not certain; `AnyEvent` is an event as it is written."""

_OF_ROUND = re.compile(r"(?:server|round|failed)/([0-9]{1,9})(?:/|$)")
"""Units of a round: the server's with its clients, and in a member's own log its rounds and failures."""


def read_events(path: Path) -> list[Event]:
    """Return the events of a run, in order, without those of rounds that were taken back.

    An incomplete last line is left out.

    Raises:
        H2TuneError: The file cannot be read, or a line other than the last is not an event.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise H2TuneError(
            f"cannot be read ({error.strerror})", where=str(path), remedy="Give the folder of a run"
        ) from None
    events: list[Event] = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode())
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("not an event")
        except (ValueError, RecursionError):
            if line_number == len(lines):
                break
            raise H2TuneError(
                "this line is not an event",
                where=f"{path}, line {line_number}",
                remedy="The file was altered after the run wrote it; restore it, or delete the line",
            ) from None
        events.append(event)
    return standing(events)


def standing(events: Iterable[Event]) -> list[Event]:
    """Return events without those of rounds that a later event takes back."""
    kept: list[Event] = []
    for event in events:
        if event["event"] == "rounds_taken_back" and isinstance(number := event.get("round"), int):
            kept = [e for e in kept if not is_taken_back(str(e.get("unit", "")), number)]
        kept.append(event)
    return kept


def is_taken_back(unit: str, number: int) -> bool:
    """Return whether a unit of the log belongs to round `number` or a later one of the federation, or to its end."""
    of = round_of_unit(unit)
    return unit == "finish" or (of is not None and of >= number)


def round_of_unit(unit: str) -> int | None:
    """Return the round of the federation that a unit of the log belongs to; None if it belongs to none."""
    found = _OF_ROUND.match(unit)
    return int(found[1]) if found else None
