"""What a run is before it trains: its clients with their data, what it says of itself, whether it is the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h2tune.config import FederationConfig, dump, load_resolved
from h2tune.events import Event
from h2tune.federation.local_client import LocalClient, majority
from h2tune.federation.messages import Enrolment
from h2tune.federation.strategy import Strategy
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all, load_client
from h2tune.runs.model_info import ClientInfo
from h2tune.runs.ranks import trainable_in
from h2tune.runs.record import run_started
from h2tune.runs.same import flat, refuse_other_settings
from h2tune.training.local import try_arguments


@dataclass(frozen=True)
class Plan:
    """What a federation file comes to, with its data in memory and nothing trained yet; clients are in order of names.

    Args:
        federation: The file.
        seen: What the clients' models and tasks look like.
        enrolments: What the server knows of the clients.
        clients: The clients with their data.
        strategy: The method.
        shared_rank: R.
        slots: D.
    """

    federation: FederationConfig
    seen: Sequence[ClientInfo]
    enrolments: Sequence[Enrolment]
    clients: Sequence[LocalClient]
    strategy: Strategy[Any]
    shared_rank: int
    slots: int


def planned(federation: FederationConfig) -> Plan:
    """Enrol all clients and load their data.

    Raises:
        H2TuneError: For everything in the file that cannot work.
    """
    seen, enrolments, size, slots = enrol_all(federation)
    try_arguments(federation.train.arguments)
    strategy = build_strategy(federation, enrolments, size, slots)
    clients = [load_client(s, e, federation) for s, e in zip(seen, enrolments, strict=True)]
    return Plan(federation, seen, enrolments, clients, strategy, size, slots)


def check_same(path: Path, federation: FederationConfig) -> None:
    """Refuse to go on with the run of another federation file; more rounds, or also training alone, are fine."""
    if path.exists():
        may_differ = ("server.rounds", "experimental.alone")
        old, new = (flat(sorted_dump(f), may_differ) for f in (load_resolved(path), federation))
        remedy = "Put it back, or start anew with another --out"
        refuse_other_settings(old, new, where=str(path), remedy=remedy)


def sorted_dump(federation: FederationConfig) -> dict[str, Any]:
    """Return the plain content of a resolved file, its clients by name."""
    return dump(federation.model_copy(update={"client": federation.sorted_clients()}))


def started(plan: Plan) -> Event:
    """Return a run's first event: the settings that say what it is, and its clients."""
    federation, strategy = plan.federation, plan.strategy
    clients = [
        {
            "name": s.client.name,
            "model": s.client.model,
            "family": s.family,
            "task": client.task.name,
            "rank": e.rank,
            "depth": e.depth,
            "width": s.width,
            "labels": list(client.task.labels),
            "examples": {
                split: len(examples)
                for split, examples in (
                    ("train", client.splits.train),
                    ("validation", client.splits.validation),
                    ("test", client.splits.test),
                )
            },
            "trainable_parameters": trainable_in(federation, s, e.rank, plan.shared_rank, plan.slots),
            "note": strategy.note(e.name),
            "majority_accuracy": majority(client.scored),
        }
        for s, e, client in zip(plan.seen, plan.enrolments, plan.clients, strict=True)
    ]
    return run_started(federation, strategy, plan.shared_rank, plan.slots, clients)
