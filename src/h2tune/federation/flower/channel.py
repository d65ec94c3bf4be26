"""Carries the round loop's messages over Flower's grid; members are known by name, whatever node they come back as."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.federation.flower.asked import Asked
from h2tune.federation.flower.attendance import Attendance
from h2tune.federation.flower.enduring import Enduring
from h2tune.federation.flower.files import Coordinator
from h2tune.federation.flower.messages import TRAIN, pack, text, unpack
from h2tune.federation.flower.roster import Roster, read_events
from h2tune.federation.ledger import Event
from h2tune.federation.proof import warning
from h2tune.federation.server import Reply
from h2tune.federation.strategy import Strategy
from h2tune.federation.update import Download, Update, payload_bytes

log = logging.getLogger("flwr.h2tune")


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
        self.grid, self.coordinator, self.experiment = Enduring(grid), coordinator, experiment
        self.roster, self.poll = roster, poll
        settings = coordinator.settings.model_dump_json()
        self.common_head = {"settings": settings, "experiment": experiment}
        self.attendance = Attendance(self.grid, roster, settings, coordinator.deadline, coordinator.patience)
        self._late: dict[str, tuple[str, int]] = {}  # message → member and round, of rounds that are over
        self._notes: dict[str, list[Event]] = {}

    def gather(self) -> None:
        """Wait until everyone who may join has enrolled; after a while, go on with those who have.

        Raises:
            H2TuneError: Fewer than `min_clients` have enrolled by then; with the reasons of those who were refused.
        """
        # of a restarted run the rounds wait for those who are missing, or do without
        known = bool(self.roster.cards)
        end = time.monotonic() + (self.coordinator.patience if known else self.coordinator.gather)
        while time.monotonic() < end:
            self.attendance.look()
            self._collect({}, 0)
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
        asked = {
            client: Asked(partial(self._round, client, download, extra.get(client, {})))
            for client, download in sorted(downloads.items())
        }

        def tell(client: str, reason: str) -> None:
            self._note(client, round_number, "sent_again", f"{reason}; it was asked again")

        end, slowest = time.monotonic() + self.coordinator.deadline, 0.0
        while asked and time.monotonic() < end:
            self.attendance.look()
            self.send(asked, slowest, tell)
            for reply in self._collect(asked, round_number):
                if reply.late is None:
                    slowest = max(slowest, asked.pop(reply.client).waited)
                yield reply
            for client in [c for c, a in asked.items() if a.given_up(self.coordinator.patience)]:
                yield self._failure(client, asked.pop(client).reason)
            if asked:
                time.sleep(self.poll)
        for client, late in asked.items():
            self._late |= dict.fromkeys(late.waiting, (client, round_number))
            told = f"; asked again, it said: {late.reason}" if late.refused else ""
            yield self._failure(client, f"no answer within {self.coordinator.deadline:.0f} s{told}")

    @property
    def nodes(self) -> Mapping[str, int]:
        """Member → the node it is at."""
        return self.attendance.nodes

    def push(self, message: Message) -> str | None:
        """Send a message and return its identifier, or None if it could not be sent."""
        return self.grid.push(message)

    def _round(self, client: str, down: Download, extra: Mapping[str, Any], node: int) -> Message:
        head = {**self.common_head, "digest": down.digest, **extra}
        return Message(
            pack(head, Update(client, down.round, 0, down.tensors)),
            dst_node_id=node,
            message_type=TRAIN,
            group_id=str(down.round),
            ttl=2 * self.coordinator.deadline,  # so that one that is late is seen, and told as late
        )

    def send(
        self, asked: Mapping[str, Asked[Message]], slowest: float, tell: Callable[[str, str], None]
    ) -> None:
        """Ask those who are there, and again those that are silent for twice as long as the slowest who answered."""
        silence = max(self.coordinator.patience, 2 * slowest) if slowest else math.inf
        for member, wanted in asked.items():
            if member in self.nodes and wanted.due(silence):
                identifier = self.push(wanted.message(self.nodes[member]))
                if identifier:
                    if wanted.sent:
                        tell(member, wanted.reason)
                    wanted.was_sent(identifier)

    def _collect(self, asked: Mapping[str, Asked[Message]], round_number: int) -> list[Reply]:
        """Take in what has arrived; return the replies of this round, one of a member at most."""
        waiting = {identifier: client for client, wanted in asked.items() for identifier in wanted.waiting}
        identifiers = [*self._late, *self.attendance.queries, *waiting]
        replies: list[Reply] = []
        for message in self.grid.pull_messages(identifiers) if identifiers else []:
            # an error's source is not the member, so the message it answers says who it is
            identifier = message.metadata.reply_to_message_id
            if identifier in self.attendance.queries:
                self._enrolled(self.attendance.queries.pop(identifier), message)
            elif identifier in self._late:
                reply = self._late_reply(identifier, message)
                replies += [reply] if reply is not None else []
            elif waiting.get(identifier, "") not in {"", *(r.client for r in replies if r.late is None)}:
                client = waiting[identifier]
                reply = self._reply(client, asked[client], round_number, message)
                replies += [reply] if reply is not None else []
        return replies

    def _enrolled(self, node: int, message: Message) -> None:
        card = self.attendance.enrol(node, message)
        strategy = getattr(self, "strategy", None)
        if card is not None and strategy is not None and card.name not in strategy.enrolments:
            strategy.enrolments[card.name] = card.enrolment  # it takes part from the next round on

    def _reply(
        self, client: str, wanted: Asked[Message], round_number: int, message: Message
    ) -> Reply | None:
        identifier = message.metadata.reply_to_message_id
        if message.has_error():
            # lost with its node or its process: sent again when it is there again, while patience lasts
            wanted.was_lost(identifier, f"it was lost (Flower's code {message.error.code})")
            return None
        reply = self._read(client, round_number, message)
        if reply.update is None and wanted.was_refused(identifier, reply.reason):
            self._notes.setdefault(client, []).extend(reply.events)  # the other one's reply brings them
            return None
        return reply

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

    def _late_reply(self, identifier: str, message: Message) -> Reply | None:
        """Note that an update came late; return it where the coordinator's file says that it is used."""
        client, round_number = place = self._late.pop(identifier)
        if message.has_error():
            return None
        self._late = {i: other for i, other in self._late.items() if other != place}  # the same once more
        used = self.coordinator.late == "use"
        told = "it counts with a smaller weight, unless it is refused" if used else "it was left out"
        self._note(client, round_number, "late_update", f"an update came after its round was over; {told}")
        if not used:
            return None
        return replace(self._read(client, round_number, message), late=round_number)

    def _most_bytes(self, client: str, round_number: int) -> int | None:
        strategy = getattr(self, "strategy", None)
        return None if strategy is None else payload_bytes(strategy.upload_spec(client, round_number))

    def _failure(self, client: str, reason: str) -> Reply:
        return Reply(client, None, self._notes.pop(client, []), reason)

    def _note(self, client: str, round_number: int, code: str, message: str) -> None:
        self._notes.setdefault(client, []).append(warning(client, round_number, code, message))
