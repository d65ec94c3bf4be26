"""What a client sends and receives in a federation, counted whole and in one place. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from h2tune.events import Event
from h2tune.report.view.coerce import integer, record, text, texts

ONCE = ("basis_agreed", "lesson_prepared")
"""Events of the messages that a client exchanges once, before the first round."""
Bytes = tuple[int, int]
"""Bytes sent and received."""


@dataclass
class Traffic:
    """The bytes of a client's messages. Training alone sends nothing to others and is not counted.

    Args:
        once: By kind of message before the first round.
        rounds: By round.
        keys: Most bytes of keys and key shares that it sent, by round; only with secure aggregation.
    """

    once: dict[str, Bytes] = field(default_factory=dict)
    rounds: dict[int, Bytes] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)

    @property
    def before(self) -> Bytes:
        """Bytes sent and received before the first round."""
        return _sum(self.once.values())

    @property
    def in_rounds(self) -> Bytes:
        """Bytes sent and received in all rounds."""
        return _sum(self.by_round().values())

    def by_round(self) -> dict[int, Bytes]:
        """Return the bytes sent and received by round, keys and key shares included."""
        found = {number: self.rounds.get(number, (0, 0)) for number in (*self.rounds, *self.keys)}
        return {number: (up + self.keys.get(number, 0), down) for number, (up, down) in found.items()}

    @property
    def total(self) -> Bytes:
        """All bytes sent and received."""
        return _sum((self.before, self.in_rounds))


def traffic_by_client(events: Iterable[Event]) -> dict[str, Traffic]:
    """Return the traffic of each client; of two events about the same message (a resumed run) the later one counts."""
    found: dict[str, Traffic] = {}
    for event in events:
        kind, where = event["event"], integer(event.get("round"))
        of = found.setdefault(text(event.get("client")), Traffic()) if "client" in event else Traffic()
        if event.get("stage") == "alone":
            continue
        if kind in ONCE:
            of.once[kind] = _bytes(event)
        elif kind == "client_trained" and where is not None:
            of.rounds[where] = _bytes(event)
        elif kind == "aggregated" and where is not None:
            facts = record(event.get("secure_aggregation"))
            for name in (*texts(facts.get("survivors")), *texts(facts.get("dropped"))):
                keys = integer(facts.get("bytes_up_of_keys_and_shares"))
                found.setdefault(name, Traffic()).keys[where] = keys or 0
    return found


def _bytes(event: Event) -> Bytes:
    return integer(event.get("bytes_up")) or 0, integer(event.get("bytes_down")) or 0


def _sum(pairs: Iterable[Bytes]) -> Bytes:
    pairs = list(pairs)
    return sum(up for up, _ in pairs), sum(down for _, down in pairs)
