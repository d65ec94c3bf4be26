"""Members' halves in this process, around the embedded engine.

Here secure aggregation shows the arithmetic and the bearing of drop-outs, and protects nothing: who owns the process
sees everything. What passes between the halves is what would pass between machines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.messages import Enrolment, Tensors, Update, manifest
from h2tune.federation.secagg.channel import Carrier, Session
from h2tune.federation.secagg.client import SecAggClient
from h2tune.federation.secagg.protocol import Keys, Shares
from h2tune.federation.secagg.vector import MASKED, PLAIN, tensor_of, words_of

log = logging.getLogger(__name__)
PRIVATE = ("relation", "coverage")
"""What a member's events say of its P and Ω; they do not leave it."""
Answer = TypeVar("Answer")


class LocalCarrier(Carrier):
    """Carries the protocol's messages within this process.

    Args:
        engine: Runs the members' rounds.
    """

    def __init__(self, engine: Channel) -> None:
        self.engine = engine
        self.halves: dict[str, SecAggClient] = {}

    def joined(self) -> Sequence[Enrolment]:
        return self.engine.joined()

    def advertise(self, session: Session, members: Sequence[str]) -> Mapping[str, Keys]:
        self.halves = {
            m: SecAggClient(m, session.name.encode(), threshold=session.threshold, most=session.members)
            for m in members
        }
        return self._each(members, lambda half: half.advertise())

    def share(self, session: Session, roster: Mapping[str, Keys]) -> Mapping[str, Mapping[str, bytes]]:
        return self._each(roster, lambda half: half.share(roster))

    def train(
        self, session: Session, downloads: Downloads, boxes: Mapping[str, Mapping[str, bytes]]
    ) -> Iterator[Reply]:
        for reply in self.engine.exchange(session.round, downloads):
            try:
                yield under_masks(reply, self.halves[reply.client], boxes[reply.client])
            except H2TuneError as error:
                yield Reply(reply.client, None, [], error.message)

    def reveal(self, session: Session, survivors: Sequence[str]) -> Mapping[str, Shares]:
        return self._each(survivors, lambda half: half.reveal(survivors))

    def _each(self, members: Iterable[str], ask: Callable[[SecAggClient], Answer]) -> dict[str, Answer]:
        answers = {}
        for name in members:
            try:
                answers[name] = ask(self.halves[name])
            except Exception as error:  # one member's trouble is not the federation's
                log.warning("secure aggregation, '%s': %s", name, error)
        return answers


def under_masks(reply: Reply, half: SecAggClient, boxes: Mapping[str, bytes]) -> Reply:
    """Return a member's reply as it leaves it: values under masks, events without P and Ω, no number of examples."""
    told = [{key: value for key, value in event.items() if key not in PRIVATE} for event in reply.events]
    if reply.update is None:
        return Reply(reply.client, None, told, reply.reason)
    plain = reply.update.tensors[PLAIN]
    values = half.mask(boxes, words_of(plain).ravel())
    sent = {MASKED: tensor_of(values).reshape(plain.shape)}
    told = [_as_sent(event, sent) for event in told]
    return Reply(reply.client, Update(reply.client, reply.update.round, 1, sent), told)


def _as_sent(event: Event, sent: Tensors) -> Event:
    """Return an event whose checksums are of what was sent: one of plain values would confirm a guess at them."""
    return {**event, "sent": manifest(sent)} if "sent" in event else event
