"""The ServerApp: a run folder, the members that enrolled, and the round loop that every engine has."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from h2tune import files
from h2tune.adapter.roles import ROLES
from h2tune.errors import H2TuneError
from h2tune.events import Event, read_events
from h2tune.federation.channel import Channel
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.rounds import Schedule, draw_from, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.flower.card import Card
from h2tune.flower.coordinator.basis import prepare_with
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.files import Coordinator, load_coordinator
from h2tune.report import write_report
from h2tune.runs.build import check_privacy, check_secure, h2tune_settings
from h2tune.runs.record import accuracy_table, run_started
from h2tune.runs.same import flat, refuse_other_settings

RUN_KEY = "coordinator"
"""Key of the run's configuration that holds the path of the coordinator's file."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation, or what is left of it."""
    path = context.run_config.get(RUN_KEY)
    if not isinstance(path, str) or not path:
        raise H2TuneError(
            "no coordinator's file", remedy=f"flwr run … --run-config '{RUN_KEY}=\"…/coordinator.toml\"'"
        )
    coordinate(grid, load_coordinator(Path(path)))


def coordinate(grid: Grid, coordinator: Coordinator) -> Path:
    """Gather the members, run the rounds, write the report; goes on with the run that is in the folder.

    Returns:
        The run folder.

    Raises:
        H2TuneError: The folder holds a run of other settings, too few members enrolled, or too few updates arrived.
    """
    folder = Path(coordinator.folder)
    check_privacy(coordinator.federation)
    check_secure(coordinator.server)
    _check_same(folder / "coordinator.toml", coordinator)
    store = RunStore(folder, resume=True)
    began = time.perf_counter()
    try:
        kept = coordinator.model_dump(mode="json", exclude_none=True)
        files.write_text(folder / "coordinator.toml", tomli_w.dumps(kept))
        roster = Roster(coordinator, folder / "members.json")
        messenger = Messenger(grid, coordinator, _experiment(folder / "experiment"), roster)
        messenger.gather(begun="start" in store.logged)
        table = _rounds(messenger, coordinator, store)
        finished: Event = {"event": "run_finished", "rounds": coordinator.server.rounds, "table": table}
        store.record("finish", [{**finished, "seconds": round(time.perf_counter() - began, 3)}])
    finally:
        store.close()
    write_report(folder)
    return folder


def _rounds(messenger: Messenger, coordinator: Coordinator, store: RunStore) -> list[dict[str, Any]]:
    """Run the rounds with the members that enrolled, and return the table of the last event."""
    server, federation, roster = coordinator.server, coordinator.federation, messenger.roster
    size, slots = int(server.shared_rank), int(server.slots)
    settings = h2tune_settings(
        federation, size, slots, roles=_roles(coordinator), secure_members=len(coordinator.member)
    )
    strategy = H2Tune(messenger.joined(), settings)
    clients = [_facts(card, coordinator) for _, card in sorted(roster.cards.items())]
    store.record("start", [run_started(federation, strategy, size, slots, clients)])
    channel = GridChannel(messenger)
    if coordinator.basis.kind == "anchored":
        channel = GridChannel(messenger, prepare_with(messenger, coordinator, roster, store))
    choose = draw_from(server.participation, server.min_clients, coordinator.seed)
    run_rounds(
        strategy,
        _under_masks(channel, coordinator) if server.secure_aggregation else channel,
        store,
        Schedule(server.rounds, server.min_clients, choose),
    )
    majorities = {name: card.majority_accuracy for name, card in sorted(roster.cards.items())}
    return accuracy_table(read_events(store.events_file), majorities)


def _roles(coordinator: Coordinator) -> tuple[str, ...]:
    """Return the shared roles in order; fixed beforehand, as a member that joins later may bring a role along."""
    return tuple(role for role in ROLES if role in coordinator.roles)


def _under_masks(channel: GridChannel, coordinator: Coordinator) -> Channel:
    from h2tune.federation.secagg.channel import MaskedChannel
    from h2tune.flower.coordinator.secure import GridCarrier

    return MaskedChannel(
        GridCarrier(channel),
        coordinator.name,
        threshold=coordinator.server.min_clients,
        members=len(coordinator.member),
        roles=_roles(coordinator),
    )


def _experiment(file: Path) -> str:
    """Return the name that all members give this run's folder: drawn once, kept over restarts."""
    if not file.exists():
        files.write_text(file, secrets.token_hex(16))
    return file.read_text()


def _check_same(file: Path, coordinator: Coordinator) -> None:
    """Refuse to go on with a run of other settings; more rounds, other waiting times and more members are fine.

    With secure aggregation the number of members is not: it sets the step of what members have quantised already.
    """
    if file.exists():
        remedy = "Put it back, or name another folder in the coordinator's file"
        try:
            earlier = load_coordinator(file)
        except H2TuneError as error:
            raise H2TuneError(
                f"holds a run of another version of h2tune, or an altered one ({error.message})",
                where=str(file.parent),
                remedy="Name another folder in the coordinator's file",
            ) from None
        old, new = _settings(earlier), _settings(coordinator)
        refuse_other_settings(old, new, where=str(file.parent), remedy=remedy)


def _settings(coordinator: Coordinator) -> dict[str, Any]:
    """Return all settings of a coordinator's file that must stay as they are, by dotted key."""
    settings = coordinator.settings.model_dump()
    settings |= {"roles": coordinator.roles}
    settings["basis"] |= {"texts": coordinator.basis.texts}
    if coordinator.server.secure_aggregation:
        settings["number of members"] = len(coordinator.member)
    return flat(settings, without=("server.rounds",))


def _facts(card: Card, coordinator: Coordinator) -> dict[str, Any]:
    facts = card.facts
    if coordinator.server.secure_aggregation:  # members do not send it
        facts["examples"] = {key: value for key, value in facts["examples"].items() if key != "train"}
    return facts
