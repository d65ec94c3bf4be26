"""Flower's grid that tolerates temporary failures of the SuperLink and answers that cannot be decoded."""

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
from h2tune.flower.seal import fault, number

if TYPE_CHECKING:
    from h2tune.federation.messages import Update

log = logging.getLogger("flwr.h2tune")
Result = TypeVar("Result")
REASON_CHARACTERS = 500
"""The most characters of a client's reason that are shown."""


@dataclass(frozen=True)
class Answer:
    """The answer to a message.

    Args:
        content: Its content, or None.
        reason: Why there is no content.
        lost: Whether the message was lost on the way, so that a retry may help.
        nonce: Number of the message.
        certain: False if it may still come: the SuperLink failed while it was fetched, and may have dropped it.
    """

    content: RecordDict | None
    reason: str = ""
    lost: bool = False
    certain: bool = True
    nonce: str = ""

    def read(self, most: int, where: str = "") -> tuple[dict[str, Any], Update | None]:
        """Return head and update of the answer to a query.

        Args:
            most: The most bytes of tensors that it may hold.
            where: The sender, for error messages.

        Raises:
            H2TuneError: There is no answer, it is malformed, or it is a reason alone.
        """
        if self.content is None:
            raise H2TuneError(self.reason, where=where)
        head, update = unpack(self.content, most)
        if "reason" in head:
            raise H2TuneError(reason_in(head), where=where)
        return head, update

    def check_signature(self, key: bytes, where: str) -> None:
        """Refuse an answer that is not signed with a key.

        Args:
            key: The public key (PEM); nothing is checked where it is empty.
            where: The sender, for error messages.

        Raises:
            H2TuneError: It is not signed, or with another key.
        """
        if self.content is not None and (problem := fault(self.content, self.nonce, key)):
            raise H2TuneError(problem, where=where)


def reason_in(head: dict[str, Any]) -> str:
    """Return the reason that a client gives in place of an answer.

    Raises:
        H2TuneError: There is none.
    """
    return text(head, "reason")[:REASON_CHARACTERS]


class TolerantGrid:
    """The part of a grid that is used here; a server's error (5xx) is logged, and the call may be retried.

    A message that could not be sent counts as not sent, an answer that could not be fetched as not there yet: callers
    poll until their time is up. An answer with a broken seal, such as one in another's name, counts as lost. Answers
    are fetched one by one: Flower fetches many at once or none, so that one which cannot be decoded, or an error
    between two of them, would lose all the others.

    Args:
        grid: Flower's grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._nodes: list[Any] = []
        # message → recipient, number and key of its answer
        self._sent: dict[str, tuple[str, str, bytes]] = {}

    def get_nodes(self) -> list[Any]:
        """Return the connected nodes; those of the last successful call if the SuperLink fails."""
        self._nodes = self._tolerated(lambda: list(self.grid.get_nodes()), self._nodes)
        return self._nodes

    def push(self, message: Message, recipient: str, key: bytes = b"") -> str | None:
        """Send a message and return its identifier, or None if it could not be sent.

        Args:
            message: The message.
            recipient: Name of whom it is for, for warnings.
            key: Public key (PEM) that its answer must be signed with; empty if it is not known yet, or there is none.
        """
        nonce = number(message.content)
        identifier = self._tolerated(lambda: next(iter(self.grid.push_messages([message])), None), None)
        if identifier:
            self._sent[identifier] = (recipient, nonce, key)
        return identifier

    def pull(self, identifier: str) -> Answer | None:
        """Return the answer to a message, or None if there is none yet."""
        failed: Answer | None = Answer(None, "the SuperLink failed as it was fetched", certain=False)
        return self._tolerated(lambda: self._pull(identifier), failed)

    def _pull(self, identifier: str) -> Answer | None:
        try:
            reply = next(iter(self.grid.pull_messages([identifier])), None)
        except httpx.HTTPError:
            raise
        except Exception as error:  # decoding depends on the client's bytes, which must not end the run
            log.warning("an answer cannot be decoded (%s)", type(error).__name__)
            return Answer(None, f"its answer cannot be read ({type(error).__name__})")
        if reply is None:
            return None
        if reply.has_error():
            self._sent.pop(identifier, None)
            return Answer(None, f"it was lost (Flower's code {reply.error.code})", lost=True)
        recipient, nonce, key = self._sent.pop(identifier)  # Flower delivers an answer once
        if problem := fault(reply.content, nonce, key):
            log.warning("'%s': %s; it is left out, and the message sent again", recipient, problem)
            return Answer(None, problem, lost=True)
        return Answer(reply.content, nonce=nonce)

    def _tolerated(self, call: Callable[[], Result], otherwise: Result) -> Result:
        """Return the result of a call, or `otherwise` where the SuperLink fails with a server's error."""
        try:
            return call()
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            log.warning("the SuperLink answered with status %d; retrying", error.response.status_code)
            return otherwise
