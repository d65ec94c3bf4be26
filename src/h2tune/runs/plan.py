"""What a run is before it trains: its clients with their data, what it says of itself, whether it is the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from h2tune._version import __version__
from h2tune.config import FederationConfig, dump, load_resolved, parse
from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.client_round import LocalClient, majority
from h2tune.federation.messages import Enrolment
from h2tune.federation.strategy import Strategy, note_of
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all, load_member
from h2tune.runs.model_info import ClientInfo
from h2tune.runs.ranks import trainable_in
from h2tune.training.local import try_arguments


@dataclass(frozen=True)
class Plan:
    """What a federation file comes to, with its data in memory and nothing trained yet; clients are in order of names.

    Args:
        federation: The file.
        seen: What the clients' models and tasks look like.
        enrolments: What the server knows of the clients.
        members: The clients with their data.
        strategy: The method.
        shared_rank: R.
        slots: D.
    """

    federation: FederationConfig
    seen: Sequence[ClientInfo]
    enrolments: Sequence[Enrolment]
    members: Sequence[LocalClient]
    strategy: Strategy
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
    members = [load_member(s, e, federation) for s, e in zip(seen, enrolments, strict=True)]
    return Plan(federation, seen, enrolments, members, strategy, size, slots)


def check_same(path: Path, federation: FederationConfig) -> None:
    """Refuse to go on with the run of another federation file; more rounds, or also training alone, are fine."""
    if not path.exists():
        return
    old, new = load_resolved(path), parse(dump(federation), str(path))
    differing = [
        f"{section}.{key}"
        for section in ("server", "adapter", "basis", "train", "data", "privacy", "experimental")
        for key, value in getattr(new, section).model_dump().items()
        if value != getattr(old, section).model_dump()[key]
        and (section, key) not in (("server", "rounds"), ("experimental", "alone"))
    ]
    differing += [key for key in ("name", "seed") if getattr(old, key) != getattr(new, key)]
    differing += ["client"] if old.sorted_clients() != new.sorted_clients() else []
    if differing:
        raise H2TuneError(
            f"the run that is to go on had another {', '.join(differing)}",
            where=str(path),
            remedy="Put it back, or start anew with another --out",
        )


def started(plan: Plan) -> Event:
    """Return a run's first event: the settings that say what it is, and its clients."""
    federation, strategy = plan.federation, plan.strategy
    return {
        "event": "run_started",
        "name": federation.name,
        "version": __version__,
        "seed": federation.seed,
        "strategy": strategy.name,
        "rounds": federation.server.rounds,
        "shared_rank": plan.shared_rank,
        "slots": plan.slots,
        "roles": list(getattr(strategy, "roles", ())),
        "alternation": federation.experimental.alternation,
        "mask": federation.experimental.mask,
        "wire_dtype": federation.server.wire_dtype,
        "clients": [
            {
                "name": s.client.name,
                "model": s.client.model,
                "family": s.family,
                "task": member.task.name,
                "rank": e.rank,
                "depth": e.depth,
                "width": s.width,
                "labels": list(member.task.labels),
                "examples": {
                    split: len(getattr(member.splits, split)) for split in ("train", "validation", "test")
                },
                "trainable_parameters": trainable_in(federation, s, e.rank, plan.shared_rank, plan.slots),
                "note": note_of(strategy, e.name),
                "majority_accuracy": majority(member.scored),
            }
            for s, e, member in zip(plan.seen, plan.enrolments, plan.members, strict=True)
        ],
    }
