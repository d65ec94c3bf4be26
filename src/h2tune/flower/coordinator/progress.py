"""What a run's log says about its events, in one line each; the events themselves are in `events.jsonl`."""

from __future__ import annotations

import logging

from h2tune.events import Event

log = logging.getLogger("flwr.h2tune")
MARK = "h2tune: %s"
"""Begins the lines that `h2tune deploy start` shows on its terminal."""
CHARACTERS = 500
"""The most of a member's words that are shown."""


def log_event(event: Event) -> None:
    """Log an event that an operator waits for; others are not logged."""
    kind = event.get("event")
    if kind == "run_started":
        log.info(MARK, f"members: {', '.join(str(client['name']) for client in event['clients'])}")
    elif kind == "aggregated":
        log.info(MARK, f"round {event['round'] + 1}: {', '.join(event['clients']) or 'no update'}")
    elif kind == "client_failed":
        log.warning(MARK, f"round {event['round'] + 1}: {event['client']} failed: {_line(event['reason'])}")
    elif kind == "warning":
        log.warning(MARK, f"round {event['round'] + 1}: {event['client']}: {_line(event['message'])}")


def _line(said: str) -> str:
    """Return what a member said as one line, so that it cannot write lines of its own into the log."""
    return " ".join(said.split())[:CHARACTERS]
