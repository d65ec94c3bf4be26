"""Flower's grid where the SuperLink fails for a moment, or a member sends what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.flower.messages import text, unpack

if TYPE_CHECKING:
    from h2tune.federation.messages import Update

log = logging.getLogger("flwr.h2tune")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What came in answer to a message.

    Args:
        content: What was answered, or None.
        reason: Why nothing was.
        lost: Whether the message was lost on the way, so that asking again may help.
        certain: False where it may come yet: the SuperLink failed as it was fetched, and may have let go of it.
    """

    content: RecordDict | None
    reason: str = ""
    lost: bool = False
    certain: bool = True

    def read(self, most: int, where: str = "") -> tuple[dict[str, Any], Update | None]:
        """Return head and update of what was answered to a question.

        Args:
            most: The most bytes of tensors that it may hold.
            where: Who answers, for the reason.

        Raises:
            H2TuneError: There is no answer, it is malformed, or a reason is all it says.
        """
        if self.content is None:
            raise H2TuneError(self.reason, where=where)
        head, update = unpack(self.content, most)
        if "reason" in head:
            raise H2TuneError(text(head, "reason")[:500], where=where)
        return head, update


class TolerantGrid:
    """The part of a grid that is used here; a server's error (5xx) is logged and borne.

    What could not be sent counts as not sent, what could not be looked up as not come: those who use it look again
    until their time is up. Answers are fetched one by one: Flower fetches many at once or none, so that one which
    cannot be read, or an error between two of them, would cost all the others.

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

    def pull(self, identifier: str) -> Answer | None:
        """Return what came in answer to a message, or None while nothing has."""
        failed: Answer | None = Answer(None, "the SuperLink failed as it was fetched", certain=False)
        return self._borne(lambda: self._pulled(identifier), failed)

    def _pulled(self, identifier: str) -> Answer | None:
        try:
            found = next(iter(self.grid.pull_messages([identifier])), None)
        except httpx.HTTPError:
            raise
        except Exception as error:  # a member decides what is decoded here, and may end nobody's run
            log.warning("an answer cannot be read (%s)", type(error).__name__)
            return Answer(None, f"its answer cannot be read ({type(error).__name__})")
        if found is None:
            return None
        if found.has_error():
            return Answer(None, f"it was lost (Flower's code {found.error.code})", lost=True)
        return Answer(found.content)

    def _borne(self, call: Callable[[], Result], otherwise: Result) -> Result:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            log.warning("the SuperLink answered %d; it is asked again", error.response.status_code)
            return otherwise
