"""The round loop, once for every engine: choose, send, collect, check, aggregate, keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.checks import warning
from h2tune.federation.messages import Download, Tensors, Update, check_update, digest
from h2tune.federation.run_store import RunStore
from h2tune.federation.strategy import Strategy
from h2tune.functional.quorum import drawn_clients
from h2tune.seeds import generator


@dataclass(frozen=True)
class Reply:
    """A client's answer in a round: an update, or the reason why there is none; and its events.

    `late` is the number of the earlier round that it answers, where a channel hands on what came after its round.
    """

    client: str
    update: Update | None
    events: Sequence[Event]
    reason: str = ""
    late: int | None = None


Choice = Callable[[int], Sequence[str]]
"""Number of a round → the clients that take part in it."""


class Channel(Protocol):
    """Carries messages to clients and back: the embedded engine, or Flower.

    One whose updates are under masks also has `unmask(updates)`, which returns their sum and facts of it: see
    `secagg.channel`. Then the strategy has `aggregate_sum`.
    """

    def exchange(self, round_number: int, downloads: Mapping[str, Download]) -> Iterable[Reply]:
        """Send each client its download and yield the replies; a client that is gone gives a reason."""


def run_rounds(
    strategy: Strategy,
    channel: Channel,
    ledger: RunStore,
    *,
    rounds: int,
    min_clients: int,
    choose: Choice,
    path: str = "server",
    stage: str = "trained",
    strict: bool = False,
    notice: Callable[[Event], None] | None = None,
) -> Tensors:
    """Run a federation's rounds, or what is left of them.

    Args:
        strategy: The method.
        channel: Carries the messages.
        ledger: Keeps state and events.
        rounds: Number of rounds in all.
        min_clients: Updates that must arrive for a round to count.
        choose: Returns the clients that take part in a round; a round without any is left out.
        path: Folder of the server's state in the run folder.
        stage: "trained", or "alone" for a client by itself.
        strict: Whether a warning is an error.
        notice: Called with every event as it is logged.

    Returns:
        The server's tensors after the last round.

    Raises:
        H2TuneError: Too few updates arrived, or (with `strict`) a round does not show what a working one shows.
    """

    def record(unit: str, events: Sequence[Event]) -> None:
        ledger.record(unit, events, notice)
        if strict:
            _raise_first_warning(events)

    state, first, last = _last_state(strategy, ledger, path, rounds)
    if strict:
        _raise_first_warning(last)
    for round_number in range(first, rounds):
        chosen = choose(round_number)
        if not chosen:
            continue
        downloads = _Downloads(strategy, state, chosen, round_number)
        found = _collect(strategy, channel, downloads, round_number, path, record)
        if len(found.updates) < min_clients:
            raise H2TuneError(
                f"round {round_number}: {len(found.updates)} of {len(chosen)} updates arrived, "
                f"min_clients is {min_clients}",
                where="server",
                remedy="Mend the clients named in events.jsonl and go on with --resume",
            )
        state, events = _step(strategy, channel, state, found, round_number, stage)
        facts = {"events": events, "told": found.told}
        ledger.commit(f"{path}/round-{round_number + 1:04d}", {"state": state}, facts)
        record(f"{path}/{round_number}/aggregate", events)
    return state


def draw_from(strategy: Strategy, participation: float, min_clients: int, seed: int) -> Choice:
    """Return how a round's clients are drawn from those that a strategy knows then; see `participants`."""
    return lambda round_number: participants(
        sorted(strategy.enrolments), participation, min_clients, seed, round_number
    )


def participants(
    clients: Sequence[str], participation: float, min_clients: int, seed: int, round_number: int
) -> list[str]:
    """Return who takes part in a round, by name; drawn from the seed and the round alone."""
    count = drawn_clients(len(clients), participation, min_clients)
    order = torch.randperm(len(clients), generator=generator(seed, "participants", round_number))
    return sorted(clients[i] for i in order[:count].tolist())


def _last_state(
    strategy: Strategy, ledger: RunStore, path: str, rounds: int
) -> tuple[Tensors, int, list[Event]]:
    """Return the server's tensors after its last round, the number of the next, and the events of its step."""
    for done in range(rounds, 0, -1):
        found = ledger.committed(f"{path}/round-{done:04d}")
        if found is not None:
            tensors, facts = found
            for unit, events in facts["told"].items():  # what a crash right after the commit cut off the log
                ledger.record(unit, events)
            ledger.record(f"{path}/{done - 1}/aggregate", facts["events"])
            return tensors["state"], done, facts["events"]
    return strategy.start(), 0, []


class _Downloads(Mapping[str, Download]):
    """What the server sends in a round, by client; each is made when it is asked for, so that they need not all fit."""

    def __init__(self, strategy: Strategy, state: Tensors, clients: Sequence[str], round_number: int) -> None:
        self.strategy, self.state, self.round = strategy, state, round_number
        self.clients = dict.fromkeys(clients)

    def __getitem__(self, client: str) -> Download:
        if client not in self.clients:
            raise KeyError(client)
        return self.strategy.download(self.state, client, self.round)

    def __iter__(self) -> Iterator[str]:
        return iter(self.clients)

    def __len__(self) -> int:
        return len(self.clients)


@dataclass(frozen=True)
class _Collected:
    """What came back in a round: its updates, those of earlier rounds, and events by the unit they are logged as."""

    updates: list[Update] = field(default_factory=list)
    late: list[Update] = field(default_factory=list)
    told: dict[str, list[Event]] = field(default_factory=dict)


def _collect(
    strategy: Strategy,
    channel: Channel,
    downloads: Mapping[str, Download],
    round_number: int,
    path: str,
    record: Callable[[str, Sequence[Event]], None],
) -> _Collected:
    """Send the downloads, and check and record each reply as it comes."""
    found = _Collected()
    for reply in channel.exchange(round_number, downloads):
        events, update = _accept(strategy, reply, round_number)
        # a failure is a unit of its own: a resumed run may do better, and tells so
        unit = f"{path}/{round_number}/{reply.client}" + ("" if update is not None else "/failed")
        unit += "" if reply.late is None else f"/of-{reply.late}"
        found.told[unit] = events
        record(unit, events)
        if update is not None:
            (found.updates if reply.late is None else found.late).append(update)
    return found


def _step(
    strategy: Strategy, channel: Channel, state: Tensors, found: _Collected, round_number: int, stage: str
) -> tuple[Tensors, list[Event]]:
    """Return the server's tensors after the round, and what is told of it."""
    began = time.perf_counter()
    following, facts = _combine(strategy, channel, state, [*found.updates, *found.late], round_number)
    if found.late:
        late = sorted(found.late, key=lambda update: (update.client, update.round))
        facts["late"] = [{"client": update.client, "round": update.round} for update in late]
    event = {
        "event": "aggregated",
        "round": round_number,
        "stage": stage,
        "clients": sorted(update.client for update in found.updates),
        **facts,
        "seconds": round(time.perf_counter() - began, 3),
        "sha256": digest(following),
    }
    events: list[Event] = [event]
    if state and digest(state) == event["sha256"]:
        message = "what is shared did not change in this round"
        events.append(warning("", round_number, "aggregate_unchanged", message))
    return following, events


def _combine(
    strategy: Any, channel: Channel, state: Tensors, updates: Sequence[Update], round_number: int
) -> tuple[Tensors, dict[str, Any]]:
    """Return the server's tensors after the round, from the updates or, where they are under masks, from their sum."""
    unmask = getattr(channel, "unmask", None)
    if unmask is None:
        following, facts = strategy.aggregate(state, updates)
    else:
        total, told = unmask(updates)
        clients = sorted(update.client for update in updates)
        following, facts = strategy.aggregate_sum(state, total, clients, round_number)
        facts = {**facts, "secure_aggregation": told}
    return following, facts


def _accept(strategy: Strategy, reply: Reply, round_number: int) -> tuple[list[Event], Update | None]:
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
        check = getattr(strategy, "read", None)
        if check is not None:
            check(reply.update)
    except H2TuneError as error:
        refused = warning(reply.client, round_number, "update_refused", str(error))
        return [*reply.events, refused, _failed(reply.client, round_number, str(error))], None
    return list(reply.events), reply.update


def _failed(client: str, round_number: int, reason: str) -> Event:
    return {"event": "client_failed", "client": client, "round": round_number, "reason": reason}


def _raise_first_warning(events: Sequence[Event]) -> None:
    for event in events:
        if event["event"] == "warning":
            who = f"client '{event['client']}', " if event["client"] else ""
            raise H2TuneError(
                event["message"],
                where=f"{who}round {event['round']}",
                remedy="This is an error because of --strict",
            )
