"""The channel of the round loop over Flower's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flwr.app import Message

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.checks import warning
from h2tune.federation.messages import Download, Enrolment, Update
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.pending import PendingRequest
from h2tune.flower.coordinator.roster import read_events
from h2tune.flower.coordinator.tolerant_grid import Answer
from h2tune.flower.messages import TRAIN, pack, text, unpack

Prepare = Callable[[Iterable[str]], None]
"""Called with the members of a round before it begins."""


class GridChannel(Channel):
    """Carries the messages of rounds to members across machines.

    Args:
        messenger: Reaches the members.
        prepare: Called with the members of a round before it begins.
    """

    def __init__(self, messenger: Messenger, prepare: Prepare = lambda _: None) -> None:
        self.messenger, self.coordinator, self.prepare = messenger, messenger.coordinator, prepare
        self._late: dict[str, tuple[str, int]] = {}  # message → member and round, of rounds that are over
        self._notes: dict[str, list[Event]] = {}

    def joined(self) -> Sequence[Enrolment]:
        return self.messenger.joined()

    def exchange(
        self,
        round_number: int,
        downloads: Downloads,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[Reply]:
        """Send each member its download and yield the replies as they come, until all are there or time is up.

        Args:
            round_number: Number of the round.
            downloads: By member.
            extra: By member, what the head of its message says besides.
        """
        extra = extra or {}
        self.prepare(downloads)
        asked = {
            client: PendingRequest(partial(self._round, client, downloads[client], extra.get(client, {})))
            for client in sorted(downloads)
        }

        def tell(client: str, reason: str) -> None:
            self._note(client, round_number, "sent_again", f"{reason}; it was asked again")

        deadline = self.coordinator.deadline
        for client, identifier, answer in self.messenger.answers(asked, deadline, tell, self._late):
            if answer is None:
                reply: Reply | None = self._failure(client, asked.pop(client).reason)
            elif identifier in self._late:
                reply = self._late_reply(identifier, answer, downloads)
            else:
                reply = self._reply(client, asked[client], downloads, identifier, answer)
                if reply is not None:
                    del asked[client]
            if reply is not None:
                yield reply
        for client, late in asked.items():
            self._late |= dict.fromkeys(late.waiting, (client, round_number))
            told = f"; asked again, it said: {late.reason}" if late.refused else ""
            yield self._failure(client, f"no answer within {deadline:.0f} s{told}")

    def _round(self, client: str, down: Download, extra: Mapping[str, Any], node: int) -> Message:
        head = {**self.messenger.common_head, "digest": down.digest, **extra}
        return Message(
            pack(head, Update(client, down.round, 0, down.tensors)),
            dst_node_id=node,
            message_type=TRAIN,
            group_id=str(down.round),
            ttl=2 * self.coordinator.deadline,  # so that one that is late is seen, and told as late
        )

    def _reply(
        self,
        client: str,
        wanted: PendingRequest[Message],
        downloads: Downloads,
        identifier: str,
        answer: Answer,
    ) -> Reply | None:
        if answer.lost:  # with node or process: sent again when it is there again, while patience lasts
            wanted.was_lost(identifier, answer.reason)
            return None
        most = downloads.upload_bytes(client, downloads.round)
        reply = self._read(client, downloads.round, answer, most)
        if reply.update is None and wanted.was_refused(identifier, reply.reason):
            self._notes.setdefault(client, []).extend(reply.events)  # the other one's reply brings them
            return None
        return reply

    def _read(self, client: str, round_number: int, answer: Answer, most: int) -> Reply:
        """Return what a message holds: an update of a round with its events, or the reason why there is none."""
        try:
            if answer.content is None:
                return self._failure(client, answer.reason)
            head, update = unpack(answer.content, most)
            if update is None:
                return self._failure(client, text(head, "reason")[:500])
            events = read_events(text(head, "events"), client, round_number)
        except H2TuneError as error:
            return self._failure(client, str(error))
        return Reply(client, update, [*self._notes.pop(client, []), *events])

    def _late_reply(self, identifier: str, answer: Answer, downloads: Downloads) -> Reply | None:
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
        most = downloads.upload_bytes(client, round_number)
        return replace(self._read(client, round_number, answer, most), late=round_number)

    def _failure(self, client: str, reason: str) -> Reply:
        return Reply(client, None, self._notes.pop(client, []), reason)

    def _note(self, client: str, round_number: int, code: str, message: str) -> None:
        self._notes.setdefault(client, []).append(warning(client, round_number, code, message))
