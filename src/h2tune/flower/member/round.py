"""A member's round: trains, or repeats the reply of a finished round; its state stays in its folder. Knows no flwr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation.channel import Reply
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.messages import Download, manifest
from h2tune.flower.member import ledger
from h2tune.flower.member.join import join_for
from h2tune.flower.member.requests import RoundRequest
from h2tune.flower.member.secure import masked_reply, masked_strategy
from h2tune.flower.member.take_back import go_back
from h2tune.flower.member.workspace import opened_engine
from h2tune.flower.policy import checksum, epsilon_of
from h2tune.report.view.traffic import traffic_by_client
from h2tune.runs.adapters import export_adapters

NO_METRICS = (
    "event", "client", "round", "stage", "steps", "bytes_up", "bytes_down", "sent", "received", "received_matches",
)  # fmt: skip
"""The keys of `client_trained` that are not measured on the member's data; `sent` describes the tensors sent."""


def take_part(path: Path, request: RoundRequest, models: BaseModels | None = None) -> Reply:
    """Run a member's round, or return the same reply again if it was run before.

    Args:
        path: The member's file.
        request: The coordinator's message.
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: The message is not for this member, or its round cannot be run now.
    """
    joined = join_for(path, request)
    settings, name = request.settings, request.client
    if not 0 <= request.round < settings.server.rounds:
        raise H2TuneError(f"there is no round {request.round}")
    strategy = masked_strategy(joined.strategy, settings, request.experiment, request.round, request.masks)
    joined = replace(joined, strategy=strategy)
    spent = epsilon_of(settings, request.round + 1)
    ledger.note(Path(joined.file.folder), request.experiment, checksum(settings, rounds=False), spent)
    with opened_engine(joined, request, models) as engine:
        _log_finished(engine, name, settings.server.rounds)  # a crash may have come between commit and log
        go_back(engine.store, joined.file.policy, request)
        _check_order(engine, request)
        if settings.basis.kind == "anchored" and engine.store.committed(f"clients/{name}/frames") is None:
            raise H2TuneError("it has no frames yet: it did not take part in agreeing on a basis")
        reply = engine.run_client(name, Download(request.round, request.tensors, request.digest))
        if reply.update is None:
            return _failed(engine, request.round, reply)
        _log_finished(engine, name, settings.server.rounds)
        if request.round == settings.server.rounds - 1:
            folder = engine.store.folder / "clients" / name
            traffic = traffic_by_client(read_events(engine.store.events_file))
            export_adapters(engine, joined.client, settings.server.rounds, folder, traffic)
        if request.masks is not None:
            reply = masked_reply(joined.file, engine.store.folder, reply, request.masks)
    if settings.privacy.metrics == "private":
        return replace(reply, events=without_metrics(reply.events))
    return reply


def without_metrics(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a member's events without measurements on its data: losses, accuracies, movement, times, warnings."""
    return [
        {key: event[key] for key in NO_METRICS if key in event}
        for event in events
        if event["event"] == "client_trained"
    ]


def _failed(engine: LocalEngine, round_number: int, reply: Reply) -> Reply:
    """Log why training failed, and return the reply that the coordinator receives: the kind of error alone."""
    failed = {
        "event": "client_failed",
        "client": reply.client,
        "round": round_number,
        "reason": reply.reason,
    }
    attempts = sum(unit.startswith(f"failed/{round_number}/") for unit in engine.store.logged)
    engine.store.record(f"failed/{round_number}/{attempts}", [failed])
    kind = reply.reason.split(":")[0]  # the type of an unexpected error; h2tune's own may begin with a path
    said = f" ({kind})" if kind.isidentifier() else ""
    return Reply(reply.client, None, [], f"training failed{said}; its own log says more")


def _check_order(engine: LocalEngine, request: RoundRequest) -> None:
    """Check that a round is not before the last one, and that a repeated one has the same tensors.

    Raises:
        H2TuneError: A later round is finished, or this one is, with other tensors.
    """
    store, name, rounds = engine.store, request.client, range(request.settings.server.rounds)
    finished = [number for number in rounds if store.committed(engine.path(name, number)) is not None]
    if request.round in finished:
        _, facts = store.committed(engine.path(name, request.round)) or ({}, {"events": []})
        received = [e["received"] for e in facts["events"] if e["event"] == "client_trained"]
        if received != [manifest(request.tensors)]:
            raise H2TuneError(f"round {request.round} was trained on other tensors than these")
    elif finished and request.round < max(finished):
        raise H2TuneError(f"round {request.round} is over; round {max(finished)} is done here")


def _log_finished(engine: LocalEngine, name: str, rounds: int) -> None:
    """Log the events of finished rounds that are not in the log."""
    for number in range(rounds):
        unit = f"round/{number}"
        if unit not in engine.store.logged:
            commit = engine.store.committed(engine.path(name, number))
            if commit is not None:
                engine.store.record(unit, commit[1]["events"])
