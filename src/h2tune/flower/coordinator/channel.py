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
from h2tune.flower.coordinator.events import read_events
from h2tune.flower.coordinator.messenger import Arrival, Messenger, settle, unanswered
from h2tune.flower.coordinator.pending import PendingRequest
from h2tune.flower.coordinator.tolerant_grid import Answer, reason_in
from h2tune.flower.messages import TRAIN, pack, text, unpack

Prepare = Callable[[Iterable[str]], None]
"""Called with the clients of a round before it begins."""


class GridChannel(Channel):
    """Carries the messages of rounds to clients across machines.

    Args:
        messenger: Sends messages and collects answers.
        prepare: Called with the clients of a round before it begins.
    """

    def __init__(self, messenger: Messenger, prepare: Prepare = lambda _: None) -> None:
        self.messenger, self.coordinator, self.prepare = messenger, messenger.coordinator, prepare
        self._late: dict[str, tuple[str, int]] = {}  # message → client and round, of rounds that are over
        self._warnings: dict[str, list[Event]] = {}  # added to the client's next reply

    def joined(self) -> Sequence[Enrolment]:
        return self.messenger.joined()

    def exchange(
        self,
        round_number: int,
        downloads: Downloads,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[Reply]:
        """Send each client its download and yield the replies as they arrive, until all have or time is up.

        Args:
            round_number: Number of the round.
            downloads: By client.
            extra: Client → further entries of the head of its message.
        """
        heads = extra or {}
        self.prepare(downloads)
        pending = {
            client: PendingRequest(partial(self._message, client, downloads[client], heads.get(client, {})))
            for client in sorted(downloads)
        }

        def read(client: str, answer: Answer) -> Reply:
            return self.read(client, round_number, answer, downloads.upload_bytes(client, downloads.round))

        def notify(client: str, reason: str) -> None:
            self._warn(client, round_number, "sent_again", f"{reason}; it was asked again")

        deadline = self.coordinator.deadline
        for arrival in self.messenger.arrivals(TRAIN, pending, deadline, notify, self._late):
            if arrival.identifier in self._late:
                late = self._late_reply(arrival, downloads)
                if late is not None:
                    yield late
            elif (result := settle(pending, arrival, read)) is not None:
                yield result.value or self._failure(result.client, result.reason)
        for client, request in pending.items():
            self._late |= dict.fromkeys(request.waiting, (client, round_number))
        for failed in unanswered(pending, deadline):
            yield self._failure(failed.client, failed.reason)

    def read(self, client: str, round_number: int, answer: Answer, most: int) -> Reply:
        """Return the update of a client's answer with its events.

        Args:
            client: The client.
            round_number: Number of the round.
            answer: The answer.
            most: The most bytes of tensors that it may hold.

        Raises:
            H2TuneError: There is no update, or the answer is malformed.
        """
        if answer.content is None:
            raise H2TuneError(answer.reason)
        head, update = unpack(answer.content, most)
        if update is None:
            raise H2TuneError(reason_in(head))
        events = read_events(text(head, "events"), client, round_number)
        return Reply(client, update, [*self._warnings.pop(client, []), *events])

    def _message(self, client: str, down: Download, extra: Mapping[str, Any], node: int) -> Message:
        head = {**self.messenger.common_head, "digest": down.digest, **extra}
        return Message(
            pack(head, Update(client, down.round, 0, down.tensors)),
            dst_node_id=node,
            message_type=TRAIN,
            group_id=str(down.round),
            ttl=2 * self.coordinator.deadline,  # so that a late answer still arrives, and is reported
        )

    def _late_reply(self, arrival: Arrival, downloads: Downloads) -> Reply | None:
        """Add a warning of a late update; return its reply where the coordinator's file says that it is used."""
        client, round_number = place = self._late.pop(arrival.identifier)
        if arrival.answer is None or arrival.answer.content is None:
            return None
        for other in [i for i, p in self._late.items() if p == place]:
            del self._late[other]  # further messages of the same request
        used = self.coordinator.late == "use"
        effect = "it counts with a smaller weight, unless it is refused" if used else "it was left out"
        self._warn(client, round_number, "late_update", f"an update came after its round was over; {effect}")
        if not used:
            return None
        try:
            most = downloads.upload_bytes(client, round_number)
            reply = self.read(client, round_number, arrival.answer, most)
        except H2TuneError as error:
            reply = self._failure(client, str(error))
        return replace(reply, late=round_number)

    def _failure(self, client: str, reason: str) -> Reply:
        return Reply(client, None, self._warnings.pop(client, []), reason)

    def _warn(self, client: str, round_number: int, code: str, message: str) -> None:
        self._warnings.setdefault(client, []).append(warning(client, round_number, code, message))
