"""A member's side of a message: enrol, or take part in a round; its state never leaves its folder. Knows no flwr."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.channel import Reply
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.local_client import LocalClient
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.messages import Download, Tensors, manifest
from h2tune.federation.run_store import RunStore
from h2tune.flower.card import Card, card_of
from h2tune.flower.files import MemberFile, Settings, load_member_file
from h2tune.flower.member.secure import Masks, masked, prepare
from h2tune.runs.build import h2tune_settings
from h2tune.runs.enrol import load_client
from h2tune.runs.model_info import ClientInfo, client_info, enrolment
from h2tune.runs.ranks import rank_of, trainable_in
from h2tune.runs.run import export_adapters
from h2tune.training.local import check_arguments, try_arguments

EXPERIMENT = re.compile(r"[0-9a-f]{32}")
ROOM = 16
"""Bytes on disk for each trained parameter that a round asks for: state and update, before older ones are removed."""
NO_METRICS = (
    "event", "client", "round", "stage", "steps", "bytes_up", "bytes_down", "sent", "received", "received_matches",
)  # fmt: skip
"""What an event of training says that is no measurement on the member's data; `sent` is of what was sent."""


@dataclass(frozen=True)
class Joined:
    """A member that has its data in memory.

    Args:
        file: Its own file.
        seen: What its model and task look like.
        member: It, with its data.
        strategy: The method, as far as this member is concerned.
        card: What it tells.
    """

    file: MemberFile
    seen: ClientInfo
    member: LocalClient
    strategy: H2Tune
    card: Card


def join(path: Path, settings: Settings) -> Joined:
    """Read a member's own file and data under the coordinator's settings; no weights are read.

    Raises:
        H2TuneError: The file, the model's description or the data cannot be used, or the settings do not go with them.
    """
    file = load_member_file(path)
    federation = file.joined(settings, path.resolve().parent)
    check_arguments(federation.train.arguments, federation.train.scheduler)
    try_arguments(federation.train.arguments)
    size, slots = federation.server.shared_rank, federation.server.slots
    if not isinstance(size, int) or not isinstance(slots, int):
        raise H2TuneError("the coordinator did not say R and D")
    seen = client_info(federation.client[0])
    examples = seen.client.train or federation.data.train
    enrolled = enrolment(seen, rank_of(seen, federation, size, slots), examples)
    strategy = H2Tune([enrolled], h2tune_settings(federation, size, slots))
    member = load_client(seen, enrolled, federation)
    parameters = trainable_in(federation, seen, enrolled.rank, size, slots)
    counted = not settings.server.secure_aggregation
    card = card_of(seen, member, parameters, file.describe, counted=counted)
    return Joined(file, seen, member, strategy, card)


def take_part(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    round_number: int,
    digest: str,
    tensors: Tensors,
    masks: Masks | None = None,
    models: BaseModels | None = None,
) -> Reply:
    """Run a member's round, or give the same answer again if it was run already.

    Args:
        path: The member's file.
        settings: What the coordinator sent.
        experiment: The coordinator's run, which names a folder within the member's.
        name: The member that the message is for.
        round_number: Number of the round.
        digest: Checksum of what the member must hold after loading the tensors.
        tensors: The server's tensors.
        masks: With secure aggregation, what is told of the masks that go on the update.
        models: Base models that stay in memory between messages.

    Raises:
        H2TuneError: The message is not for this member, or not of a round that it can take part in now.
    """
    joined = addressed(path, settings, experiment, name)
    if not 0 <= round_number < settings.server.rounds:
        raise H2TuneError(f"there is no round {round_number}")
    joined = replace(joined, strategy=prepare(joined.strategy, settings, round_number, masks))
    with at_work(joined, settings, experiment, models) as engine:
        store, rounds = engine.store, range(settings.server.rounds)
        _log(engine, store, name, rounds)  # what a crash between state and log left out
        _refuse_stale(engine, store, name, round_number, tensors, rounds)
        if settings.basis.kind == "anchored" and store.committed(f"clients/{name}/frames") is None:
            raise H2TuneError("it has no frames yet: it did not take part in agreeing on a basis")
        reply = engine.run_client(name, Download(round_number, tensors, digest))
        if reply.update is None:
            failed = {"event": "client_failed", "client": name, "round": round_number, "reason": reply.reason}
            attempts = sum(unit.startswith(f"failed/{round_number}/") for unit in store.logged)
            store.record(f"failed/{round_number}/{attempts}", [failed])
            return Reply(
                name, None, [], f"training failed ({reply.reason.split(':')[0]}); its own log says more"
            )
        _log(engine, store, name, rounds)
        if round_number == settings.server.rounds - 1:
            export_adapters(engine, joined.member, settings.server.rounds, store.folder / "clients" / name)
        if masks is not None:
            reply = masked(store.folder, reply, masks)
    return (
        replace(reply, events=without_metrics(reply.events))
        if settings.privacy.metrics == "private"
        else reply
    )


def addressed(path: Path, settings: Settings, experiment: str, name: str) -> Joined:
    """Return the member that a message is for, with its data.

    Raises:
        H2TuneError: As `join`, or the message is for another member, or of no experiment.
    """
    joined = join(path, settings)
    if joined.member.name != name:
        raise H2TuneError(f"the message is for '{name}', this is '{joined.member.name}'")
    experiment_of(experiment)
    return joined


@contextlib.contextmanager
def at_work(
    joined: Joined, settings: Settings, experiment: str, models: BaseModels | None = None
) -> Iterator[LocalEngine]:
    """Yield an engine of this member alone; its folder is its own while the block lasts.

    Args:
        joined: The member.
        settings: What the coordinator sent.
        experiment: The coordinator's run.
        models: Base models that stay in memory between messages.

    Raises:
        H2TuneError: As `_open`.
    """
    store = _open(Path(joined.file.folder) / experiment, ROOM * joined.card.trainable_parameters)
    try:
        dtypes = {joined.member.name: joined.seen.client.dtype}
        models = models or BaseModels(settings.seed)
        models.reseed(settings.seed)
        yield LocalEngine([joined.member], dtypes, joined.strategy, models, store)
    finally:
        store.close()


def experiment_of(name: str) -> str:
    """Return an experiment's name, which is that of a folder.

    Raises:
        H2TuneError: It is none.
    """
    if not EXPERIMENT.fullmatch(name):
        raise H2TuneError("the experiment's name is none")
    return name


def without_metrics(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a member's events without what was measured on its data: losses, accuracies, movement, times, warnings."""
    return [
        {key: event[key] for key in NO_METRICS if key in event}
        for event in events
        if event["event"] == "client_trained"
    ]


def _open(folder: Path, room: int) -> RunStore:
    """Open a member's own record of a run, with room for a round; reasons name no path, as the coordinator reads them.

    Raises:
        H2TuneError: The disk is full or cannot be written, or an earlier message is still worked on.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < room:
            told = f"the disk of its folder is full: {free / 1e6:.1f} MB are free, a round may take {room / 1e6:.1f}"
            raise H2TuneError(told)
        return RunStore(folder, resume=True)
    except OSError as error:
        raise H2TuneError(f"its folder cannot be written ({error.strerror})") from error
    except H2TuneError as error:
        raise H2TuneError(error.message if not error.where else f"its folder: {error.message}") from error


def _refuse_stale(
    engine: LocalEngine,
    store: RunStore,
    name: str,
    round_number: int,
    tensors: Tensors,
    rounds: Iterable[int],
) -> None:
    """Refuse a round that is over, or the same round with other tensors than this member trained on."""
    done = [number for number in rounds if store.committed(engine.path(name, number)) is not None]
    if round_number in done:
        _, facts = store.committed(engine.path(name, round_number)) or ({}, {"events": []})
        received = [e["received"] for e in facts["events"] if e["event"] == "client_trained"]
        if received != [manifest(tensors)]:
            raise H2TuneError(f"round {round_number} was trained on other tensors than these")
    elif done and round_number < max(done):
        raise H2TuneError(f"round {round_number} is over; round {max(done)} is done here")


def _log(engine: LocalEngine, store: RunStore, name: str, rounds: Iterable[int]) -> None:
    for number in rounds:
        unit, found = f"round/{number}", None
        if unit not in store.logged:
            found = store.committed(engine.path(name, number))
        if found is not None:
            store.record(unit, found[1]["events"])
