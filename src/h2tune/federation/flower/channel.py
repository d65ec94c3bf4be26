"""Carries the round loop's messages over Flower's grid; members are known by name, whatever node they come back as."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.federation.flower.attendance import Attendance, push
from h2tune.federation.flower.files import Coordinator
from h2tune.federation.flower.messages import TRAIN, pack, text, unpack
from h2tune.federation.flower.roster import Roster, read_events
from h2tune.federation.ledger import Event
from h2tune.federation.proof import warning
from h2tune.federation.server import Reply
from h2tune.federation.strategy import Strategy
from h2tune.federation.update import Download, Tensors, Update, payload_bytes

log = logging.getLogger("flwr.h2tune")
Answer = TypeVar("Answer")

ATTEMPTS = 3
"""Times that one round is sent to a member that is lost on the way; it answers the same if it was trained already."""


@dataclass
class _Asked:
    """A member in the round that is going on."""

    download: Download
    extra: Mapping[str, Any] = field(default_factory=dict)
    sent: int = 0
    message: str = ""
    reason: str = "it is not connected"
    since: float = field(default_factory=time.monotonic)


class GridChannel:
    """A channel of the round loop over Flower's messages.

    Args:
        grid: Flower's grid.
        coordinator: Deadlines, and the settings that travel.
        experiment: Names the members' folders of this run.
        roster: Who may join, and who has.
        poll: Seconds between looks at the grid.
    """

    strategy: Strategy
    prepare: Callable[[Iterable[str]], None] | None = None
    """Called with the members of a round before it begins."""

    def __init__(
        self, grid: Grid, coordinator: Coordinator, experiment: str, roster: Roster, *, poll: float = 1.0
    ) -> None:
        self.grid, self.coordinator, self.experiment = grid, coordinator, experiment
        self.roster, self.poll = roster, poll
        settings = coordinator.settings.model_dump_json()
        self.common_head = {"settings": settings, "experiment": experiment}
        self.attendance = Attendance(grid, roster, settings, coordinator.deadline)
        self._late: dict[str, tuple[str, int]] = {}  # message → member and round, of rounds that are over
        self._notes: dict[str, list[Event]] = {}

    def gather(self) -> None:
        """Wait until everyone who may join has enrolled; after a while, go on with those who have.

        Raises:
            H2TuneError: Fewer than `min_clients` have enrolled by then; with the reasons of those who were refused.
        """
        known = bool(
            self.roster.cards
        )  # a restarted run: its rounds wait for those who are missing, or do without
        end = time.monotonic() + (self.coordinator.patience if known else self.coordinator.gather)
        while time.monotonic() < end:
            self.attendance.look()
            self._collect({})
            if len(self.nodes) == len(self.roster.admitted) or (
                known and self.roster.cards.keys() <= self.nodes.keys()
            ):
                return
            time.sleep(self.poll)
        least = self.coordinator.server.min_clients
        if len(self.roster.cards) < least:
            told = "; ".join(sorted(set(self.attendance.warnings)))
            told = f" ({told})" if told else ""
            raise H2TuneError(
                f"{len(self.roster.cards)} members enrolled within {self.coordinator.gather:.0f} s, "
                f"min_clients is {least}{told}",
                where="coordinator",
                remedy="See that the members' SuperNodes are running, and start again",
            )

    def exchange(
        self,
        round_number: int,
        downloads: Mapping[str, Download],
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[Reply]:
        """Send each member its download and yield the replies as they come, until all are there or time is up.

        Args:
            round_number: Number of the round.
            downloads: By member.
            extra: By member, what the head of its message says besides.
        """
        extra = extra or {}
        if self.prepare is not None:
            self.prepare(downloads)
        asked = {c: _Asked(download, extra.get(c, {})) for c, download in sorted(downloads.items())}
        end = time.monotonic() + self.coordinator.deadline
        while asked and time.monotonic() < end:
            self.attendance.look()
            self._send(asked)
            for reply in self._collect(asked):
                if reply.late is None:
                    del asked[reply.client]
                yield reply
            for client in [c for c, a in asked.items() if self._given_up(a)]:
                yield self._failure(client, asked.pop(client).reason)
            if asked:
                time.sleep(self.poll)
        for client, late in asked.items():
            if late.message:
                self._late[late.message] = (client, round_number)
            yield self._failure(client, f"no answer within {self.coordinator.deadline:.0f} s")

    @property
    def nodes(self) -> Mapping[str, int]:
        """Member → the node it is at."""
        return self.attendance.nodes

    def push(self, message: Message) -> str | None:
        """Send a message and return its identifier, or None if it could not be sent."""
        return push(self.grid, message)

    def ask(
        self,
        kind: str,
        heads: Mapping[str, Mapping[str, Any]],
        read: Callable[[str, Mapping[str, Any], Update | None], Answer],
        *,
        seconds: float,
        tensors: Tensors | None = None,
        most: Callable[[str], int] = lambda _: 0,
    ) -> dict[str, Answer]:
        """Send members a query, each once it is connected, and return the answers that can be read.

        Args:
            kind: Of the query.
            heads: By member, what is said.
            read: Takes member, head and update of an answer; may raise `H2TuneError`.
            seconds: How long to wait; who has not answered by then has no answer.
            tensors: What goes with it.
            most: Returns the most bytes of tensors that a member's answer may hold.
        """
        left = dict(heads)
        waiting: dict[str, str] = {}  # message → member
        answers: dict[str, Answer] = {}
        end = time.monotonic() + seconds
        connected = min(
            end, time.monotonic() + self.coordinator.patience
        )  # who is not there is not waited for longer
        while time.monotonic() < (end if waiting else connected) and (left or waiting):
            self.attendance.look()
            for member in [name for name in left if name in self.nodes]:
                head = {**self.common_head, "client": member, **left[member]}
                message = Message(
                    pack(head, None if tensors is None else Update(member, 0, 0, tensors)),
                    dst_node_id=self.nodes[member],
                    message_type=f"query.{kind}",
                    ttl=self.coordinator.deadline,
                )
                if identifier := self.push(message):
                    waiting[identifier] = member
                    del left[member]
            for message in self.grid.pull_messages(list(waiting)) if waiting else []:
                member = waiting.pop(message.metadata.reply_to_message_id)
                try:
                    answers[member] = read(member, *_answer(message, most(member)))
                except H2TuneError as error:
                    log.warning("%s: '%s': %s", kind, member, error)
            if left or waiting:
                time.sleep(self.poll)
        return answers

    def _send(self, asked: Mapping[str, _Asked]) -> None:
        for client, wanted in asked.items():
            if wanted.message or client not in self.nodes or wanted.sent >= ATTEMPTS:
                continue
            down = wanted.download
            head = {**self.common_head, "digest": down.digest, **wanted.extra}
            message = Message(
                pack(head, Update(client, down.round, 0, down.tensors)),
                dst_node_id=self.nodes[client],
                message_type=TRAIN,
                group_id=str(down.round),
                ttl=2 * self.coordinator.deadline,  # so that one that is late is seen, and told as late
            )
            identifier = self.push(message)
            if identifier:
                if wanted.sent:
                    self._note(client, down.round, "sent_again", f"{wanted.reason}; it was asked again")
                wanted.message, wanted.sent = identifier, wanted.sent + 1

    def _collect(self, asked: Mapping[str, _Asked]) -> list[Reply]:
        """Take in what has arrived; return the replies of this round."""
        waiting = {wanted.message: client for client, wanted in asked.items() if wanted.message}
        identifiers = [*self._late, *self.attendance.queries, *waiting]
        replies = []
        for message in self.grid.pull_messages(identifiers) if identifiers else []:
            # an error's source is not the member, so the message it answers says who it is
            identifier = message.metadata.reply_to_message_id
            if identifier in self.attendance.queries:
                self._enrolled(self.attendance.queries.pop(identifier), message)
            elif identifier in self._late:
                reply = self._late_reply(*self._late.pop(identifier), message)
                replies += [reply] if reply is not None else []
            elif identifier in waiting:
                client = waiting[identifier]
                reply = self._reply(client, asked[client], message)
                replies += [reply] if reply is not None else []
        return replies

    def _enrolled(self, node: int, message: Message) -> None:
        card = self.attendance.enrol(node, message)
        strategy = getattr(self, "strategy", None)
        if card is not None and strategy is not None and card.name not in strategy.enrolments:
            strategy.enrolments[card.name] = card.enrolment  # it takes part from the next round on

    def _reply(self, client: str, wanted: _Asked, message: Message) -> Reply | None:
        if message.has_error():
            # lost with its node or its process: sent again when it is there again, while patience lasts
            wanted.message, wanted.since = "", time.monotonic()
            wanted.reason = f"it was lost (Flower's code {message.error.code})"
            return None
        return self._read(client, wanted.download.round, message)

    def _read(self, client: str, round_number: int, message: Message) -> Reply:
        """Return what a message holds: an update of a round with its events, or the reason why there is none."""
        try:
            head, update = unpack(message.content, self._most_bytes(client, round_number))
            if update is None:
                return self._failure(client, text(head, "reason")[:500])
            events = read_events(text(head, "events"), client, round_number)
        except H2TuneError as error:
            return self._failure(client, str(error))
        return Reply(client, update, [*self._notes.pop(client, []), *events])

    def _late_reply(self, client: str, round_number: int, message: Message) -> Reply | None:
        """Note that an update came late; return it where the coordinator's file says that it is used."""
        if message.has_error():
            return None
        used = self.coordinator.late == "use"
        told = "it counts with a smaller weight, unless it is refused" if used else "it was left out"
        self._note(client, round_number, "late_update", f"an update came after its round was over; {told}")
        if not used:
            return None
        return replace(self._read(client, round_number, message), late=round_number)

    def _most_bytes(self, client: str, round_number: int) -> int | None:
        strategy = getattr(self, "strategy", None)
        return None if strategy is None else payload_bytes(strategy.upload_spec(client, round_number))

    def _given_up(self, wanted: _Asked) -> bool:
        waited = time.monotonic() - wanted.since > self.coordinator.patience
        return not wanted.message and (waited or wanted.sent >= ATTEMPTS)

    def _failure(self, client: str, reason: str) -> Reply:
        return Reply(client, None, self._notes.pop(client, []), reason)

    def _note(self, client: str, round_number: int, code: str, message: str) -> None:
        self._notes.setdefault(client, []).append(warning(client, round_number, code, message))


def _answer(message: Message, most: int) -> tuple[dict[str, Any], Update | None]:
    if message.has_error():
        raise H2TuneError(f"it was lost (Flower's code {message.error.code})")
    head, update = unpack(message.content, most)
    if "reason" in head:
        raise H2TuneError(text(head, "reason")[:500])
    return head, update
