"""The round loop of every engine: choose, send, collect, check, aggregate, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.checks import check_shared, far_updates, warning
from h2tune.federation.messages import Tensors, check_update, digest
from h2tune.federation.run_store import RunStore
from h2tune.federation.strategy import Decoded, Strategy, decoded
from h2tune.functional.quorum import drawn_clients
from h2tune.seeds import generator

Choice = Callable[[Sequence[str], int], Sequence[str]]
"""(names of the enrolled clients, number of the round) → names of the clients that take part."""
Notice = Callable[[Event], None]


@dataclass(frozen=True)
class Schedule:
    """How the rounds of a federation are run.

    Args:
        rounds: Number of rounds in all.
        min_clients: Updates that a round needs.
        choose: Returns the clients that take part in a round; a round without any is skipped.
        path: Folder of the server's state in the run folder.
        stage: "trained", or "alone" for the comparison without federation.
        strict: Whether warnings and failed clients are errors.
        refuse_far: Whether updates that are far larger than the others' are left out.
    """

    rounds: int
    min_clients: int
    choose: Choice
    path: str = "server"
    stage: str = "trained"
    strict: bool = False
    refuse_far: bool = False


def run_rounds(
    strategy: Strategy[Any],
    channel: Channel,
    store: RunStore,
    schedule: Schedule,
    notice: Notice | None = None,
) -> Tensors:
    """Run a federation's rounds, or the remaining ones of a resumed run, and return the server's final tensors.

    Args:
        strategy: The method.
        channel: Transports the messages.
        store: Stores state and events.
        schedule: How the rounds are run.
        notice: Called with every event as it is logged.

    Raises:
        H2TuneError: Too few updates arrived, or (with `strict`) a check or a client of a round failed.
    """
    return _Rounds(strategy, channel, store, schedule, notice).run()


class _Rounds:
    """The rounds of one federation; arguments as in `run_rounds`."""

    def __init__(
        self,
        strategy: Strategy[Any],
        channel: Channel,
        store: RunStore,
        schedule: Schedule,
        notice: Notice | None,
    ) -> None:
        self.strategy, self.channel, self.store = strategy, channel, store
        self.schedule, self.notice = schedule, notice

    def run(self) -> Tensors:
        state, first, last = self._last_state()
        self._check(last)
        for number in range(first, self.schedule.rounds):
            for enrolment in self.channel.joined():
                self.strategy = self.strategy.with_client(enrolment)
            chosen = self.schedule.choose(sorted(self.strategy.enrolments), number)
            if chosen:
                state = self._round(state, chosen, number)
        return state

    def _round(self, state: Tensors, chosen: Sequence[str], number: int) -> Tensors:
        """Run one round: send, collect, aggregate, commit."""
        collected = self._collect(Downloads(self.strategy, state, chosen, number))
        if self.schedule.refuse_far:
            self._leave_out_far(collected, number)
        if len(collected.updates) < self.schedule.min_clients:
            raise H2TuneError(
                f"round {number}: {len(collected.updates)} of {len(chosen)} updates arrived, "
                f"min_clients is {self.schedule.min_clients}",
                where="server",
                remedy="Fix the clients named in events.jsonl, and start the run again: it goes on with this round",
            )
        state, events = self._step(state, collected, number)
        facts = {"events": events, "told": collected.events}
        path = self.schedule.path
        self.store.commit(f"{path}/round-{number + 1:04d}", {"state": state}, facts)
        self._record(f"{path}/{number}/aggregate", events)
        return state

    def _record(self, unit: str, events: Sequence[Event]) -> None:
        self.store.record(unit, events, self.notice)
        self._check(events)

    def _check(self, events: Sequence[Event]) -> None:
        if self.schedule.strict:
            raise_first_problem(events)

    def _last_state(self) -> tuple[Tensors, int, list[Event]]:
        """Return the server's tensors after its last round, the number of the next, and the events of its step."""
        path = self.schedule.path
        for done in range(self.schedule.rounds, 0, -1):
            commit = self.store.committed(f"{path}/round-{done:04d}")
            if commit is not None:
                tensors, facts = commit
                # a crash right after the commit may have kept these events out of the log
                for unit, events in facts["told"].items():
                    self.store.record(unit, events)
                self.store.record(f"{path}/{done - 1}/aggregate", facts["events"])
                return tensors["state"], done, facts["events"]
        return self.strategy.start(), 0, []

    def _collect(self, downloads: Downloads) -> _Collected:
        """Send the downloads; check, decode and record each reply as it comes."""
        collected = _Collected()
        for reply in self.channel.exchange(downloads.round, downloads):
            events, update = _accept(self.strategy, reply, downloads.round)
            # a failure is a unit of its own, so that a resumed run can log its success
            unit = f"{self.schedule.path}/{downloads.round}/{reply.client}"
            unit += ("" if update is not None else "/failed") + (
                "" if reply.late is None else f"/of-{reply.late}"
            )
            collected.events[unit] = events
            self._record(unit, events)
            if update is not None:
                (collected.updates if reply.late is None else collected.late).append(update)
        return collected

    def _leave_out_far(self, collected: _Collected, number: int) -> None:
        """Leave out each update that is far larger than the others' of its round, and record that it failed."""
        sizes = {update.client: self.strategy.size_of(update) for update in collected.updates}
        for far in far_updates(sizes, number):
            client, reason = far["client"], f"{far['message']} (server.refuse_far)"
            collected.updates[:] = [update for update in collected.updates if update.client != client]
            unit = f"{self.schedule.path}/{number}/{client}/failed"
            collected.events[unit] = [far, _failed(client, number, reason)]
            self._record(unit, collected.events[unit])

    def _step(self, state: Tensors, collected: _Collected, number: int) -> tuple[Tensors, list[Event]]:
        """Return the server's tensors after the round, and its events."""
        began = time.perf_counter()
        updates = [*collected.updates, *collected.late]
        sizes = {update.client: self.strategy.size_of(update) for update in updates}
        following, facts = self._combine(state, updates, number)
        check_shared(following, sizes, number, self.strategy.largest)
        if collected.late:
            late = sorted(collected.late, key=lambda update: (update.client, update.round))
            facts["late"] = [{"client": update.client, "round": update.round} for update in late]
        event = {
            "event": "aggregated",
            "round": number,
            "stage": self.schedule.stage,
            "clients": sorted(update.client for update in collected.updates),
            **facts,
            "seconds": round(time.perf_counter() - began, 3),
            "sha256": digest(following),
        }
        events: list[Event] = [event, *far_updates(sizes, number)]
        untrained = all(update.examples == 0 for update in collected.updates)
        counted = [update.client for update in collected.updates if update.examples]
        silent = all(sizes.get(client) == 0 for client in counted)  # each client checks its own part
        if state and digest(state) == event["sha256"] and not untrained and not silent:
            message = "what is shared did not change in this round"
            events.append(warning("", number, "aggregate_unchanged", message))
        return following, events

    def _combine(
        self, state: Tensors, updates: Sequence[Decoded[Any]], number: int
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the server's tensors after the round, from the updates or, if they are masked, from their sum."""
        unmasked = self.channel.unmask(updates)
        if unmasked is None:
            return self.strategy.aggregate(state, updates)
        clients = sorted(update.client for update in updates)
        following, facts = self.strategy.aggregate_sum(state, unmasked.total, clients, number)
        return following, {**facts, "secure_aggregation": unmasked.facts}


def draw_from(participation: float, min_clients: int, seed: int) -> Choice:
    """Return a choice that draws clients from those enrolled; see `drawn`."""
    return lambda clients, round_number: drawn(clients, participation, min_clients, seed, round_number)


def drawn(
    clients: Sequence[str], participation: float, min_clients: int, seed: int, round_number: int
) -> list[str]:
    """Return the clients of a round, sorted by name; the draw depends on the seed and the round only."""
    count = drawn_clients(len(clients), participation, min_clients)
    order = torch.randperm(len(clients), generator=generator(seed, "participants", round_number))
    return sorted(clients[i] for i in order[:count].tolist())


@dataclass(frozen=True)
class _Collected:
    """The replies of a round: its updates, late ones of earlier rounds, and events by log unit."""

    updates: list[Decoded[Any]] = field(default_factory=list)
    late: list[Decoded[Any]] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=dict)


def _accept(
    strategy: Strategy[Any], reply: Reply, round_number: int
) -> tuple[list[Event], Decoded[Any] | None]:
    """Return a reply's events and its validated, decoded update; None if it failed, with the reason in the events."""
    if reply.late is not None:
        round_number = reply.late
    if reply.update is None:
        return [*reply.events, _failed(reply.client, round_number, reply.reason)], None
    enrolment = strategy.enrolments[reply.client]
    try:
        spec = strategy.upload_spec(reply.client, round_number)
        check_update(
            reply.update, spec, client=reply.client, round_number=round_number, examples=enrolment.examples
        )
        update = decoded(strategy, reply.update)
    except H2TuneError as error:
        refused = warning(reply.client, round_number, "update_refused", str(error))
        return [*reply.events, refused, _failed(reply.client, round_number, str(error))], None
    return list(reply.events), update


def _failed(client: str, round_number: int, reason: str) -> Event:
    return {"event": "client_failed", "client": client, "round": round_number, "reason": reason}


def raise_first_problem(events: Sequence[Event]) -> None:
    """Raise the first warning or failure of a client among events as an error, as --strict asks.

    Raises:
        H2TuneError: There is one.
    """
    for event in events:
        if event["event"] in ("warning", "client_failed"):
            who = f"client '{event['client']}', " if event["client"] else ""
            raise H2TuneError(
                event["message"] if event["event"] == "warning" else event["reason"],
                where=f"{who}round {event['round']}",
                remedy="This is an error because of --strict",
            )
