"""Sends messages to clients over Flower's grid, retries lost ones, and collects the answers.

Clients are addressed by name, at whatever node they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Enrolment
from h2tune.flower.coordinator.node_directory import NodeDirectory
from h2tune.flower.coordinator.pending import PendingRequest, retry_after
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.tolerant_grid import Answer, TolerantGrid
from h2tune.flower.files import CoordinatorFile

Value = TypeVar("Value")
Pending = dict[str, PendingRequest[Message]]
"""Requests without a result, by client."""
Notify = Callable[[str, str], None]
"""Called with a client whose request is sent again, and the reason."""


@dataclass(frozen=True)
class Arrival:
    """Something happened to a request.

    Args:
        client: The client; empty for an answer to an earlier round.
        identifier: Identifier of the message that was answered; empty if none was.
        answer: The answer; None if the request was given up.
    """

    client: str
    identifier: str
    answer: Answer | None


@dataclass(frozen=True)
class Result(Generic[Value]):
    """The result of a request.

    Args:
        client: The client.
        value: Its answer as it was read, or None.
        reason: Why there is none.
    """

    client: str
    value: Value | None
    reason: str = ""


class Messenger:
    """Sends messages to clients and collects their answers; clients may enrol at any time.

    Args:
        grid: Flower's grid.
        coordinator: Deadlines, and the settings that are sent.
        experiment: Name of this run, and of its folders at the members.
        roster: Checks and records who enrols.
        poll: Seconds between looks at the grid.
        taken_back: First round of each taking back of this run, in order.
        looked: Called after each look with who has enrolled, and who is connected.
    """

    def __init__(
        self,
        grid: Grid,
        coordinator: CoordinatorFile,
        experiment: str,
        roster: Roster,
        *,
        poll: float = 1.0,
        taken_back: Sequence[int] = (),
        looked: Callable[[Collection[str], Collection[str]], None] = lambda enrolled, connected: None,
    ) -> None:
        self.grid, self.coordinator = TolerantGrid(grid), coordinator
        self.roster, self.poll, self.looked = roster, poll, looked
        settings = coordinator.settings.model_dump_json()
        self.common_head: dict[str, Any] = {"settings": settings, "experiment": experiment}
        if taken_back:
            self.common_head["taken_back"] = list(taken_back)
        self.directory = NodeDirectory(
            self.grid, roster, settings, coordinator.deadline, coordinator.patience
        )
        self._taking_part: set[str] = set()
        self._slowest: dict[str, float] = {}  # kind of request → seconds of the slowest answer, the last time

    @property
    def nodes(self) -> Mapping[str, int]:
        """Client → its node, of connected ones."""
        return self.directory.nodes

    def joined(self) -> Sequence[Enrolment]:
        """Return the clients that enrolled since the last call, by name."""
        new = sorted(self.roster.cards.keys() - self._taking_part)
        self._taking_part.update(new)
        return [self.roster.cards[name].enrolment for name in new]

    def gather(self, *, begun: bool = False) -> None:
        """Wait until every member that may join has enrolled; after a time-out, continue with those that have.

        Args:
            begun: Whether rounds were run before: then wait, for a shorter time, for those that enrolled before.

        Raises:
            H2TuneError: Fewer than `min_clients` have enrolled by then; with the reasons of those that were refused.
        """
        seconds = self.coordinator.patience if begun else self.coordinator.gather
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.directory.look()
            self._enrol()
            self.looked(self.roster.cards, self.nodes)
            everyone = len(self.nodes) == len(self.roster.admitted)
            if everyone or (begun and self.roster.cards.keys() <= self.nodes.keys()):
                return
            time.sleep(self.poll)
        enrolled, least = len(self.roster.cards), self.coordinator.server.min_clients
        if enrolled < least:
            warnings = "; ".join(sorted(set(self.directory.warnings)))
            warnings = f" ({warnings})" if warnings else ""
            raise H2TuneError(
                f"{enrolled} members enrolled within {seconds:.0f} s, min_clients is {least}{warnings}",
                where="coordinator",
                remedy="Check that the members' SuperNodes are running, and start again",
            )

    def arrivals(
        self,
        kind: str,
        pending: Pending,
        seconds: float,
        notify: Notify,
        earlier: Mapping[str, Any] | None = None,
    ) -> Iterator[Arrival]:
        """Send requests, retry those of silent clients, and yield answers as they arrive.

        Ends when `pending` is empty or time is up. The caller removes a client from `pending` once it needs nothing
        more from it; one whose request was given up (an arrival without an answer) must be removed.

        Args:
            kind: Kind of the requests: how long answers took says when the next ones of this kind are sent again.
            pending: Requests, by client.
            seconds: The time available.
            notify: Called with a client whose request is sent again, and the reason.
            earlier: Identifiers of messages of earlier rounds, whose answers are yielded as well.
        """
        end, patience = time.monotonic() + seconds, self.coordinator.patience
        before, slowest = self._slowest.get(kind, 0.0), 0.0
        while pending and time.monotonic() < end:
            began = time.monotonic()
            self.directory.look()
            self.looked(self.roster.cards, self.nodes)
            self._send(pending, retry_after(seconds, patience, max(before, slowest)), notify)
            for arrival in self._fetch(pending, earlier or {}):
                client = arrival.client
                waited = pending[client].waited if client else 0.0
                yield arrival
                if client and client not in pending:
                    self._slowest[kind] = slowest = max(slowest, waited)
            for client in [c for c, request in pending.items() if request.given_up(patience)]:
                yield Arrival(client, "", None)
            if pending:  # a look takes long with many clients: pause for as long
                time.sleep(max(self.poll, min(time.monotonic() - began, 10 * self.poll)))

    def _send(self, pending: Pending, silence: float, notify: Notify) -> None:
        """Send the requests that are due to connected clients."""
        for client, request in pending.items():
            if client in self.nodes and request.due(silence, self.coordinator.patience):
                message, key = request.message(self.nodes[client]), self.roster.key_of(client)
                identifier = self.grid.push(message, client, key)
                if identifier:
                    if request.sent:
                        notify(client, request.reason)
                    request.was_sent(identifier)

    def _fetch(self, pending: Pending, earlier: Mapping[str, Any]) -> Iterator[Arrival]:
        """Enrol new clients; yield the answers to messages of this round and of earlier ones, one at a time."""
        for identifier in list(earlier):
            answer = self.grid.pull(identifier) if identifier in earlier else None
            if answer is not None and answer.certain:
                yield Arrival("", identifier, answer)
        self._enrol()
        waiting = [(client, i) for client, request in pending.items() for i in sorted(request.waiting)]
        for client, identifier in waiting:
            if client not in pending:
                continue  # it answered the request twice
            answer = self.grid.pull(identifier)
            if answer is not None and not answer.certain:
                pending[client].doubtful = True
            elif answer is not None:
                yield Arrival(client, identifier, answer)

    def _enrol(self) -> None:
        """Pass the answers to enrolment queries to the directory."""
        for identifier in list(self.directory.queries):
            answer = self.grid.pull(identifier)
            if answer is not None:
                self.directory.enrol(identifier, answer)


def settle(pending: Pending, arrival: Arrival, read: Callable[[str, Answer], Value]) -> Result[Value] | None:
    """Return the result of a client's request and remove it from `pending`; None if an answer may still come.

    A lost message is sent again while the coordinator's patience lasts. A refusal counts once no other message of the
    request may be answered.

    Args:
        pending: Requests, by client.
        arrival: An arrival for one of them.
        read: Reads a client's answer; may raise `H2TuneError`.
    """
    client, answer = arrival.client, arrival.answer
    request = pending[client]
    if answer is None:
        del pending[client]
        return Result(client, None, request.reason)
    if answer.lost:
        request.was_lost(arrival.identifier, answer.reason)
        return None
    try:
        value = read(client, answer)
    except H2TuneError as error:
        if request.was_refused(arrival.identifier, str(error)):
            return None
        del pending[client]
        return Result(client, None, str(error))
    del pending[client]
    return Result(client, value)


def unanswered(pending: Pending, seconds: float) -> Iterator[Result[Any]]:
    """Yield the results of requests that are still pending when time is up."""
    for client, request in pending.items():
        refusal = f"; asked again, it said: {request.reason}" if request.refused else ""
        yield Result(client, None, f"no answer within {seconds:.0f} s{refusal}")
