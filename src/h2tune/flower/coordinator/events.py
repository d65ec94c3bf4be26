"""Validates the events of a client's reply before they enter the coordinator's log. Knows no flwr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.events import Event, check_event

KINDS = ("evaluated", "client_trained", "warning")
"""Kinds of events that a client may send."""
EVENT_BYTES = 2**22
DEPTH = 8
"""The deepest nesting of lists and objects; beyond the parser's stack, writing could fail where reading did not."""


def read_events(text: str, client: str, round_number: int) -> list[Event]:
    """Return a client's events; those of other clients, rounds or kinds, or of wrong values, are left out.

    Args:
        text: The events as JSON.
        client: The client.
        round_number: Number of the round.

    Raises:
        H2TuneError: They are not a list, too long, or nested too deeply.
    """
    where = f"'{client}'"
    if len(text) > EVENT_BYTES:
        raise H2TuneError("its events are too long", where=where)
    try:
        events = json.loads(text)
    except (ValueError, RecursionError):
        events = None
    if not isinstance(events, list):
        raise H2TuneError("its events are not a list", where=where)
    if _is_deeper(events, DEPTH):
        raise H2TuneError(f"its events are nested deeper than {DEPTH}", where=where)
    return [event for event in events if isinstance(event, dict) and _is_allowed(event, client, round_number)]


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(item, levels - 1) for item in inner)


def _is_allowed(event: Mapping[str, Any], client: str, round_number: int) -> bool:
    rounds = (round_number, -1) if event.get("event") == "evaluated" else (round_number,)
    own = event.get("client") == client and event.get("round") in rounds
    if (
        not own
        or event.get("event") not in KINDS
        or event.get("stage", "trained") not in ("trained", "before")
    ):
        return False
    try:
        check_event(event)  # a missing message, or an accuracy in words, would end the run where it is used
    except H2TuneError:
        return False
    return bool(0 <= event.get("accuracy", 0) <= 1)
