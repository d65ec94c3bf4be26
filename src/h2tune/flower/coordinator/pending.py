"""Requests to clients that are not answered yet, and the rules for retries. Knows no flwr.

Flower loses messages: with a node, with the process that handles one, and silently where the SuperLink's database was
locked while the node fetched it (flwr 1.41, thirty clients on two cores). A client that gets a message twice returns
the same answer twice, or refuses the second one (shares of a secret are sent once), so that a retry is safe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Message = TypeVar("Message")

ATTEMPTS = 3
"""The most times that one request is sent to a client."""


def retry_after(seconds: float, patience: float, slowest: float) -> float:
    """Return after how many seconds of silence a request is sent again.

    Twice the slowest answer, and at least `patience` or a quarter of `seconds`; at most half of `seconds`, as where
    nobody has answered yet.

    Args:
        seconds: The time available for an answer.
        patience: The coordinator's patience, in seconds.
        slowest: Seconds that the slowest answer took, of these requests and of the last ones of their kind, or 0.
    """
    return min(seconds / 2, max(min(patience, seconds / 4), 2 * slowest)) if slowest else seconds / 2


@dataclass
class PendingRequest(Generic[Message]):
    """A request to one client.

    Args:
        message: Returns the message for a node.
        reason: Why there is no answer yet.
        sent: Number of times it was sent.
        waiting: Identifiers of messages that may still be answered.
        since: When it was last sent or lost, in seconds.
        refused: Whether `reason` is the client's own, while another message may still be answered.
        doubtful: Whether an answer may have been lost while it was fetched.
    """

    message: Callable[[int], Message]
    reason: str = "it is not connected"
    sent: int = 0
    waiting: set[str] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    refused: bool = False
    doubtful: bool = False

    def due(self, silence: float, patience: float = math.inf) -> bool:
        """Return whether to send now: no message is under way, or the last one was silent for too long.

        Args:
            silence: The most seconds of silence.
            patience: The most seconds of silence where an answer may have been lost while it was fetched.
        """
        if self.sent >= ATTEMPTS:
            return False
        if self.waiting and self.waited > (min(silence, patience) if self.doubtful else silence):
            self.reason, self.refused = f"nothing came for {self.waited:.0f} s", False
            return True
        return not self.waiting

    def was_sent(self, identifier: str) -> None:
        """Record that a message was sent."""
        self.waiting.add(identifier)
        self.sent, self.since, self.doubtful = self.sent + 1, time.monotonic(), False

    def was_lost(self, identifier: str, reason: str) -> None:
        """Record that a message was lost."""
        self.waiting.discard(identifier)
        self.reason, self.since = reason, time.monotonic()

    def was_refused(self, identifier: str, reason: str) -> bool:
        """Record that a message was answered by a reason alone; return whether another may still be answered.

        If the first message was not lost, the second is refused while the client works on the first.
        """
        self.was_lost(identifier, reason)
        self.refused = bool(self.waiting)
        return bool(self.waiting)

    def given_up(self, patience: float) -> bool:
        """Return whether to stop waiting: no message is under way, and no further one will be sent in time."""
        return not self.waiting and (self.waited > patience or self.sent >= ATTEMPTS)

    @property
    def waited(self) -> float:
        """Seconds since it was last sent or lost."""
        return time.monotonic() - self.since
