"""Members that were asked something: what of it may still be answered, and when to ask again. Knows no flwr.

Flower loses messages: with a node, with the process that works on one, and without a word where the SuperLink's
database was locked as the node fetched it (flwr 1.41, thirty members on two cores). A member that is asked twice gives
the same answer twice, or refuses the second time (shares of a secret are given once): asking again does no harm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Message = TypeVar("Message")

ATTEMPTS = 3
"""Times that a member is asked the same."""


def silence(seconds: float, patience: float, slowest: float) -> float:
    """Return after how many seconds who has not answered is asked again.

    Twice as long as the slowest of those who have; half the time there is, where nobody has.

    Args:
        seconds: The time there is for an answer.
        patience: The least, where the time there is allows it.
        slowest: Seconds that the slowest answer so far took, or 0.
    """
    return max(min(patience, seconds / 4), 2 * slowest) if slowest else seconds / 2


@dataclass
class PendingRequest(Generic[Message]):
    """A member that is asked something.

    Args:
        message: Returns the message for a node.
        reason: Why there is no answer yet.
        sent: Times it was asked.
        waiting: Messages that may still be answered.
        since: When it was asked last, or lost; seconds.
        refused: Whether the reason is its own, while another message may still bring more.
        doubtful: Whether an answer may have been lost as it was fetched.
    """

    message: Callable[[int], Message]
    reason: str = "it is not connected"
    sent: int = 0
    waiting: set[str] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    refused: bool = False
    doubtful: bool = False

    def due(self, silence: float, patience: float = math.inf) -> bool:
        """Return whether to ask now: nothing is under way, or what is has been silent for more than some seconds.

        Args:
            silence: Those seconds.
            patience: The most where an answer may have been lost as it was fetched.
        """
        if self.sent >= ATTEMPTS:
            return False
        if self.waiting and self.waited > (min(silence, patience) if self.doubtful else silence):
            self.reason, self.refused = f"nothing came for {self.waited:.0f} s", False
            return True
        return not self.waiting

    def was_sent(self, identifier: str) -> None:
        """Note that it was asked by a message."""
        self.waiting.add(identifier)
        self.sent, self.since, self.doubtful = self.sent + 1, time.monotonic(), False

    def was_lost(self, identifier: str, reason: str) -> None:
        """Note that a message was lost."""
        self.waiting.discard(identifier)
        self.reason, self.since = reason, time.monotonic()

    def was_refused(self, identifier: str, reason: str) -> bool:
        """Note that a message was answered by a reason alone; return whether another may still bring more.

        Where the first was not lost, the second is refused while the first is worked on, and that may take its time.
        """
        self.was_lost(identifier, reason)
        self.refused = bool(self.waiting)
        return bool(self.waiting)

    def given_up(self, patience: float) -> bool:
        """Return whether there is nothing to wait for: it is not there, or what it was sent was lost."""
        return not self.waiting and (self.waited > patience or self.sent >= ATTEMPTS)

    @property
    def waited(self) -> float:
        """Seconds since it was asked last, or lost."""
        return time.monotonic() - self.since
