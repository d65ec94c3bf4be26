"""The ServerApp: a run folder, the enrolled members, and the round loop of `h2tune.federation`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
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
from h2tune.federation.take_back import complete, taken_back
from h2tune.flower import audit
from h2tune.flower.card import Card
from h2tune.flower.coordinator.basis import frames_before_rounds
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.progress import MARK, log, log_event
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.status import FILE as STATUS
from h2tune.flower.coordinator.status import Status
from h2tune.flower.files import CoordinatorFile
from h2tune.flower.load import load_coordinator
from h2tune.report import write_report
from h2tune.runs.build import check_privacy, check_secure, h2tune_settings
from h2tune.runs.record import accuracy_table, run_started
from h2tune.runs.same import flat, refuse_other_settings

RUN_KEY = "coordinator"
"""Key of the run's configuration that holds the path of the coordinator's file."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation, or resume an interrupted one."""
    path = context.run_config.get(RUN_KEY)
    if not isinstance(path, str) or not path:
        raise H2TuneError(
            "no coordinator's file is named",
            remedy=f"flwr run … --run-config '{RUN_KEY}=\"…/coordinator.toml\"'",
        )
    status = Status(Path(path).with_name(STATUS))
    try:
        with status.recorded():
            coordinate(grid, load_coordinator(Path(path)), status)
    except H2TuneError as error:
        log.error(MARK, error)  # Flower's traceback follows
        raise


def coordinate(grid: Grid, coordinator: CoordinatorFile, status: Status | None = None) -> Path:
    """Gather the members, run the rounds and write the report; a run that is in the folder is resumed.

    Args:
        grid: Flower's grid.
        coordinator: The coordinator's file.
        status: Is kept up to date, if it is given.

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
    key = None if coordinator.key is None else Path(coordinator.key)
    status = status or Status(None)
    store.follow = _following(audit.follow(store.events_file, folder / audit.FILE, key), status)
    began = time.perf_counter()
    try:
        content = coordinator.model_dump(mode="json", exclude_none=True)
        files.write_text(folder / "coordinator.toml", tomli_w.dumps(content))
        roster = Roster(coordinator, folder / "members.json")
        complete(store)
        experiment, again = _experiment(folder / "experiment"), taken_back(store)
        events = read_events(store.events_file) if "start" in store.logged else []
        status.begin(coordinator.name, coordinator.server.rounds, coordinator.names, events)
        messenger = Messenger(grid, coordinator, experiment, roster, taken_back=again, looked=status.nodes)
        messenger.gather(begun="start" in store.logged)
        table = _run(messenger, store)
        finished: Event = {"event": "run_finished", "rounds": coordinator.server.rounds, "table": table}
        store.record("finish", [{**finished, "seconds": round(time.perf_counter() - began, 3)}])
    finally:
        store.close()
    write_report(folder)
    return folder


def _following(logged: Callable[[str], None], status: Status) -> Callable[[str], None]:
    """Return what to call with each new line of the run's events."""

    def follow(line: str) -> None:
        logged(line)
        event: Event = json.loads(line)
        log_event(event)
        status.event(event)

    return follow


def _run(messenger: Messenger, store: RunStore) -> list[dict[str, Any]]:
    """Run the rounds with the enrolled members, and return the table of the last event."""
    coordinator, cards = messenger.coordinator, messenger.roster.cards
    server, federation = coordinator.server, coordinator.federation
    size, slots = int(server.shared_rank), int(server.slots)
    settings = h2tune_settings(
        federation, size, slots, roles=_roles(coordinator), secure_members=len(coordinator.member)
    )
    strategy = H2Tune(messenger.joined(), settings)
    clients = [_facts(card, coordinator) for _, card in sorted(cards.items())]
    store.record("start", [run_started(federation, strategy, size, slots, clients)])
    choose = draw_from(server.participation, server.min_clients, coordinator.seed)
    run_rounds(
        strategy,
        _channel(messenger, store),
        store,
        Schedule(server.rounds, server.min_clients, choose, refuse_far=server.refuse_far),
    )
    majorities = {name: card.majority_accuracy for name, card in sorted(cards.items())}
    return accuracy_table(read_events(store.events_file), majorities)


def _channel(messenger: Messenger, store: RunStore) -> Channel:
    """Return the channel of the rounds, with an anchored basis and secure aggregation if they are set."""
    coordinator = messenger.coordinator
    channel = GridChannel(messenger)
    if coordinator.basis.kind == "anchored":
        channel = GridChannel(messenger, frames_before_rounds(messenger, store))
    if not coordinator.server.secure_aggregation:
        return channel
    from h2tune.federation.secagg.channel import MaskedChannel
    from h2tune.flower.coordinator.secure import GridCarrier

    return MaskedChannel(
        GridCarrier(channel),
        coordinator.name,
        threshold=coordinator.server.min_clients,
        clients=len(coordinator.member),
        roles=_roles(coordinator),
        run=messenger.common_head["experiment"],
    )


def _roles(coordinator: CoordinatorFile) -> tuple[str, ...]:
    """Return the shared roles in order; from the file, as a member that joins later may have further ones."""
    return tuple(role for role in ROLES if role in coordinator.roles)


def _experiment(file: Path) -> str:
    """Return the name of this run's folders at the members: drawn once, and stored for restarts."""
    if not file.exists():
        files.write_text(file, secrets.token_hex(16))
    return file.read_text()


def _check_same(file: Path, coordinator: CoordinatorFile) -> None:
    """Check that a run in the folder has the same settings; rounds, waiting times and members may have changed.

    With secure aggregation the number of members may not: it sets the step with which members quantise.

    Raises:
        H2TuneError: A setting differs.
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


def _settings(coordinator: CoordinatorFile) -> dict[str, Any]:
    """Return all settings of a coordinator's file that must not change, by dotted key."""
    settings = coordinator.settings.model_dump()
    settings |= {"roles": coordinator.roles}
    settings["basis"] |= {"texts": coordinator.basis.texts}
    if coordinator.server.secure_aggregation:
        settings["number of members"] = len(coordinator.member)
    return flat(settings, without=("server.rounds",))


def _facts(card: Card, coordinator: CoordinatorFile) -> dict[str, Any]:
    """Return a member's entry in `run_started`."""
    facts = card.facts
    if coordinator.server.secure_aggregation:  # members do not send it
        facts["examples"] = {key: value for key, value in facts["examples"].items() if key != "train"}
    return facts
