"""Flower's grid where the SuperLink fails for a moment: its database is locked while thirty members connect at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

log = logging.getLogger("flwr.h2tune")
Result = TypeVar("Result")


class Enduring:
    """The part of a grid that is used here; a server's error (5xx) is logged and borne.

    What could not be sent counts as not sent, what could not be looked up as not come: those who use it look again
    until their time is up.

    Args:
        grid: Flower's grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._nodes: list[Any] = []

    def get_nodes(self) -> list[Any]:
        """Return the nodes that are connected, or were when that could be told last."""
        self._nodes = self._borne(lambda: list(self.grid.get_nodes()), self._nodes)
        return self._nodes

    def push(self, message: Message) -> str | None:
        """Send a message and return its identifier, or None if it could not be sent."""
        return self._borne(lambda: next(iter(self.grid.push_messages([message])), None), None)

    def pull_messages(self, identifiers: Iterable[str]) -> list[Message]:
        """Return what came in answer to messages."""
        return self._borne(lambda: list(self.grid.pull_messages(identifiers)), [])

    def _borne(self, call: Callable[[], Result], otherwise: Result) -> Result:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            log.warning("the SuperLink answered %d; it is asked again", error.response.status_code)
            return otherwise
