"""Carries the round loop's messages over Flower's grid; members are known by name, whatever node they come back as."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.checks import warning
from h2tune.federation.messages import Download, Update, payload_bytes
from h2tune.federation.rounds import Reply
from h2tune.federation.strategy import Strategy
from h2tune.flower.coordinator.node_directory import NodeDirectory
from h2tune.flower.coordinator.pending import PendingRequest, silence
from h2tune.flower.coordinator.roster import Roster, read_events
from h2tune.flower.coordinator.tolerant_grid import Answer, TolerantGrid
from h2tune.flower.files import Coordinator
from h2tune.flower.messages import TRAIN, pack, text, unpack

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
        self.grid, self.coordinator, self.experiment = TolerantGrid(grid), coordinator, experiment
        self.roster, self.poll = roster, poll
        settings = coordinator.settings.model_dump_json()
        self.common_head = {"settings": settings, "experiment": experiment}
        self.attendance = NodeDirectory(
            self.grid, roster, settings, coordinator.deadline, coordinator.patience
        )
        self._late: dict[str, tuple[str, int]] = {}  # message → member and round, of rounds that are over
        self._notes: dict[str, list[Event]] = {}

    def gather(self, *, begun: bool = False) -> None:
        """Wait until everyone who may join has enrolled; after a while, go on with those who have.

        Args:
            begun: Whether rounds were run before: they go on with who has enrolled then, or without who is missing.

        Raises:
            H2TuneError: Fewer than `min_clients` have enrolled by then; with the reasons of those who were refused.
        """
        seconds = self.coordinator.patience if begun else self.coordinator.gather
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.attendance.look()
            self._enrol()
            if len(self.nodes) == len(self.roster.admitted) or (
                begun and self.roster.cards.keys() <= self.nodes.keys()
            ):
                return
            time.sleep(self.poll)
        least = self.coordinator.server.min_clients
        if len(self.roster.cards) < least:
            told = "; ".join(sorted(set(self.attendance.warnings)))
            told = f" ({told})" if told else ""
            raise H2TuneError(
                f"{len(self.roster.cards)} members enrolled within {seconds:.0f} s, "
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
            client: PendingRequest(partial(self._round, client, download, extra.get(client, {})))
            for client, download in sorted(downloads.items())
        }

        def tell(client: str, reason: str) -> None:
            self._note(client, round_number, "sent_again", f"{reason}; it was asked again")

        deadline = self.coordinator.deadline
        for client, identifier, answer in self.answers(asked, deadline, tell, self._late):
            if answer is None:
                reply: Reply | None = self._failure(client, asked.pop(client).reason)
            elif identifier in self._late:
                reply = self._late_reply(identifier, answer)
            else:
                reply = self._reply(client, asked[client], round_number, identifier, answer)
                if reply is not None:
                    del asked[client]
            if reply is not None:
                yield reply
        for client, late in asked.items():
            self._late |= dict.fromkeys(late.waiting, (client, round_number))
            told = f"; asked again, it said: {late.reason}" if late.refused else ""
            yield self._failure(client, f"no answer within {deadline:.0f} s{told}")

    def answers(
        self,
        asked: dict[str, PendingRequest[Message]],
        seconds: float,
        tell: Callable[[str, str], None],
        others: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[str, str, Answer | None]]:
        """Ask members, and again who is silent for long; yield who answers, to which message, and what came.

        Lasts until nobody is left in `asked`, from which its user takes out who is done with, or until time is up.
        Who is not there, or whose messages were lost, is yielded without an answer, and must be taken out.

        Args:
            asked: By member.
            seconds: The time there is.
            tell: Called with a member that is asked again, and why.
            others: Messages of earlier rounds, whose answers are yielded as well, without a member's name.
        """
        end, slowest, patience = time.monotonic() + seconds, 0.0, self.coordinator.patience
        while asked and time.monotonic() < end:
            began = time.monotonic()
            self.attendance.look()
            self._send(asked, silence(seconds, patience, slowest), tell)
            for client, identifier, answer in self._arrived(asked, others or {}):
                waited = asked[client].waited if client else 0.0
                yield client, identifier, answer
                if client and client not in asked:
                    slowest = max(slowest, waited)
            for client in [c for c, a in asked.items() if a.given_up(patience)]:
                yield client, "", None
            if asked:  # many members take long to look after: rest as long
                time.sleep(max(self.poll, min(time.monotonic() - began, 10 * self.poll)))

    def _arrived(
        self, asked: Mapping[str, PendingRequest[Message]], others: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Answer]]:
        """Take in who enrols; yield what came in answer to messages of this round and others, one at a time."""
        for identifier in list(others):
            answer = self.grid.pull(identifier) if identifier in others else None
            if answer is not None and answer.certain:
                yield "", identifier, answer
        self._enrol()
        waiting = [(client, i) for client, wanted in asked.items() for i in sorted(wanted.waiting)]
        for client, identifier in waiting:
            if client not in asked:
                continue  # it answered the same twice
            answer = self.grid.pull(identifier)
            if answer is not None and not answer.certain:
                asked[client].doubtful = True
            elif answer is not None:
                yield client, identifier, answer

    @property
    def nodes(self) -> Mapping[str, int]:
        """Member → the node it is at."""
        return self.attendance.nodes

    def _round(self, client: str, down: Download, extra: Mapping[str, Any], node: int) -> Message:
        head = {**self.common_head, "digest": down.digest, **extra}
        return Message(
            pack(head, Update(client, down.round, 0, down.tensors)),
            dst_node_id=node,
            message_type=TRAIN,
            group_id=str(down.round),
            ttl=2 * self.coordinator.deadline,  # so that one that is late is seen, and told as late
        )

    def _send(
        self, asked: Mapping[str, PendingRequest[Message]], silence: float, tell: Callable[[str, str], None]
    ) -> None:
        """Ask those who are there, and again those that were silent for some seconds."""
        for member, wanted in asked.items():
            if member in self.nodes and wanted.due(silence, self.coordinator.patience):
                identifier = self.grid.push(wanted.message(self.nodes[member]))
                if identifier:
                    if wanted.sent:
                        tell(member, wanted.reason)
                    wanted.was_sent(identifier)

    def _enrol(self) -> None:
        """Take in what nodes say that were asked who they are."""
        for identifier in list(self.attendance.queries):
            answer = self.grid.pull(identifier)
            if answer is not None:
                self._enrolled(identifier, answer)

    def _enrolled(self, identifier: str, answer: Answer) -> None:
        card = self.attendance.enrol(identifier, answer)
        strategy = getattr(self, "strategy", None)
        if card is not None and strategy is not None and card.name not in strategy.enrolments:
            strategy.enrolments[card.name] = card.enrolment  # it takes part from the next round on

    def _reply(
        self, client: str, wanted: PendingRequest[Message], round_number: int, identifier: str, answer: Answer
    ) -> Reply | None:
        if answer.lost:  # with node or process: sent again when it is there again, while patience lasts
            wanted.was_lost(identifier, answer.reason)
            return None
        reply = self._read(client, round_number, answer)
        if reply.update is None and wanted.was_refused(identifier, reply.reason):
            self._notes.setdefault(client, []).extend(reply.events)  # the other one's reply brings them
            return None
        return reply

    def _read(self, client: str, round_number: int, answer: Answer) -> Reply:
        """Return what a message holds: an update of a round with its events, or the reason why there is none."""
        try:
            if answer.content is None:
                return self._failure(client, answer.reason)
            head, update = unpack(answer.content, self._most_bytes(client, round_number))
            if update is None:
                return self._failure(client, text(head, "reason")[:500])
            events = read_events(text(head, "events"), client, round_number)
        except H2TuneError as error:
            return self._failure(client, str(error))
        return Reply(client, update, [*self._notes.pop(client, []), *events])

    def _late_reply(self, identifier: str, answer: Answer) -> Reply | None:
        """Note that an update came late; return it where the coordinator's file says that it is used."""
        client, round_number = place = self._late.pop(identifier)
        if answer.content is None:
            return None
        for other in [i for i, p in self._late.items() if p == place]:
            del self._late[other]  # the same once more
        used = self.coordinator.late == "use"
        told = "it counts with a smaller weight, unless it is refused" if used else "it was left out"
        self._note(client, round_number, "late_update", f"an update came after its round was over; {told}")
        if not used:
            return None
        return replace(self._read(client, round_number, answer), late=round_number)

    def _most_bytes(self, client: str, round_number: int) -> int | None:
        strategy = getattr(self, "strategy", None)
        return None if strategy is None else payload_bytes(strategy.upload_spec(client, round_number))

    def _failure(self, client: str, reason: str) -> Reply:
        return Reply(client, None, self._notes.pop(client, []), reason)

    def _note(self, client: str, round_number: int, code: str, message: str) -> None:
        self._notes.setdefault(client, []).append(warning(client, round_number, code, message))
