"""A run before it trains: its clients with their data, its first event, and the check against an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from h2tune.config import FederationConfig, dump, load_resolved
from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.local_client import LocalClient, majority
from h2tune.federation.messages import Enrolment
from h2tune.federation.run_store import RunStore
from h2tune.federation.strategy import Strategy
from h2tune.federation.take_back import complete, take_back
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all, load_client
from h2tune.runs.model_info import ClientInfo
from h2tune.runs.ranks import trainable_in
from h2tune.runs.record import run_started
from h2tune.runs.same import flat, refuse_other_settings
from h2tune.tasks.prompts import framed
from h2tune.tasks.task import Example, Task
from h2tune.training.arguments import try_arguments


@dataclass(frozen=True)
class Plan:
    """A federation with its data in memory and nothing trained yet; clients are sorted by name.

    Args:
        federation: The file.
        infos: The clients' models and tasks.
        enrolments: The clients as the server knows them.
        clients: The clients with their data.
        strategy: The method.
        shared_rank: R.
        slots: D.
    """

    federation: FederationConfig
    infos: Sequence[ClientInfo]
    enrolments: Sequence[Enrolment]
    clients: Sequence[LocalClient]
    strategy: Strategy[Any]
    shared_rank: int
    slots: int


def planned(federation: FederationConfig) -> Plan:
    """Enrol all clients and load their data.

    Raises:
        H2TuneError: The file has a setting that cannot work.
    """
    infos, enrolments, size, slots = enrol_all(federation)
    try_arguments(federation.train.arguments)
    clients = [load_client(s, e, federation) for s, e in zip(infos, enrolments, strict=True)]
    if federation.server.strategy == "pooled":
        clients = pooled(clients)
    enrolments = [client.enrolment for client in clients]
    strategy = build_strategy(federation, enrolments, size, slots)
    return Plan(federation, infos, enrolments, clients, strategy, size, slots)


def pooled(clients: Sequence[LocalClient]) -> list[LocalClient]:
    """Return the clients with the training examples of all that have the same labels, each in its own prompt.

    For the oracle alone: no federation can bring data together.
    """
    result = []
    for client in clients:
        labels, train = set(client.task.labels), list(client.splits.train)
        for other in clients:
            if labels and other.name != client.name and set(other.task.labels) == labels:
                train += [_restated(e, other.task, client.task) for e in other.splits.train]
        splits = replace(client.splits, train=tuple(train))
        enrolment = replace(client.enrolment, examples=len(train))
        result.append(replace(client, splits=splits, enrolment=enrolment, _tokens={}))
    return result


def _restated(example: Example, source: Task, task: Task) -> Example:
    """Return an example as a client with the same labels would ask it: its text in the client's own prompt."""
    name = source.labels[example.label] if example.label is not None else ""
    label = task.labels.index(name)
    prompt = framed(task.template, example.text)
    return Example(
        prompt.text, task.verbalisers[label], label, example.text, prompt.fields, example.text_fields
    )


ROBUST_RULE = ("server.aggregation", "server.hostile", "server.min_clients")
"""Settings that may change where rounds are taken back: which updates count, and not what is trained."""


def check_same(path: Path, federation: FederationConfig, *may_differ: str) -> None:
    """Refuse to resume a run of another federation file; rounds, monitors and training alone may differ.

    Args:
        path: The run's resolved file.
        federation: The file to resume it with.
        may_differ: Dotted keys of further settings that may differ.
    """
    if path.exists():
        may_differ = ("server.rounds", "experimental.alone", "monitors", *may_differ)
        old, new = (flat(sorted_dump(f), may_differ) for f in (load_resolved(path), federation))
        remedy = "Restore the settings, or choose another --out"
        refuse_other_settings(old, new, where=str(path), remedy=remedy)


def open_store(folder: Path, federation: FederationConfig, resume: bool, from_round: int | None) -> RunStore:
    """Return the store of a run folder, after rounds were taken back if that is asked for.

    Args:
        folder: The run folder.
        federation: The file to run.
        resume: Whether to resume the run in it.
        from_round: The first round to take back, from 0; None for none.

    Raises:
        H2TuneError: The folder holds another run, or the round cannot be taken back.
    """
    again = from_round is not None
    if again and federation.privacy.noise != "none":
        message, remedy = "rounds with noise cannot be taken back: their ε is spent", "Start a new run"
        raise H2TuneError(message, where="--from-round", remedy=remedy)
    if resume or again:
        check_same(folder / "config.toml", federation, *(ROBUST_RULE if again else ()))
    store = RunStore(folder, resume=resume or again)
    try:
        complete(store)
        if from_round is not None:
            take_back(store, from_round)
    except BaseException:
        store.close()
        raise
    return store


def sorted_dump(federation: FederationConfig) -> dict[str, Any]:
    """Return the plain content of a resolved file, with clients sorted by name."""
    return dump(federation.model_copy(update={"client": federation.sorted_clients()}))


def started(plan: Plan) -> Event:
    """Return a run's first event: its settings and its clients."""
    federation, strategy = plan.federation, plan.strategy
    clients = [
        {
            "name": info.client.name,
            "model": info.client.model,
            "family": info.family,
            "task": client.task.name,
            "rank": e.rank,
            "depth": e.depth,
            "width": info.width,
            "labels": list(client.task.labels),
            "examples": {
                split: len(examples)
                for split, examples in (
                    ("train", client.splits.train),
                    ("validation", client.splits.validation),
                    ("test", client.splits.test),
                )
            },
            **({"unused": client.splits.unused} if client.splits.unused else {}),
            **({"repeated": client.splits.repeated} if client.splits.repeated else {}),
            "trainable_parameters": trainable_in(federation, info, e.rank, plan.shared_rank, plan.slots),
            "note": strategy.note(e.name),
            "majority_accuracy": majority(client.scored),
        }
        for info, e, client in zip(plan.infos, plan.enrolments, plan.clients, strict=True)
    ]
    return run_started(federation, strategy, plan.shared_rank, plan.slots, clients)
