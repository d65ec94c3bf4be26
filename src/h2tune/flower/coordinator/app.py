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
from h2tune._version import __version__
from h2tune.adapter.roles import ROLES
from h2tune.errors import H2TuneError
from h2tune.events import Event, read_events
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.rounds import Channel, draw_from, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.flower.anchors import prepare_with
from h2tune.flower.card import Card
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.files import Coordinator, load_coordinator
from h2tune.report import write_report
from h2tune.runs.build import build_strategy, check_privacy, check_secure

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
    ledger = RunStore(folder, resume=True)
    began = time.perf_counter()
    try:
        kept = coordinator.model_dump(mode="json", exclude_none=True)
        files.write_text(folder / "coordinator.toml", tomli_w.dumps(kept))
        roster = Roster(coordinator, folder / "members.json")
        channel = GridChannel(grid, coordinator, _experiment(folder / "experiment"), roster)
        channel.gather(begun="start" in ledger.logged)
        enrolments = [card.enrolment for _, card in sorted(roster.cards.items())]
        server = coordinator.server
        strategy = build_strategy(
            coordinator.federation, enrolments, int(server.shared_rank), int(server.slots)
        )
        if isinstance(strategy, H2Tune):  # fixed beforehand: a member that joins later may bring a role along
            roles = [role for role in ROLES if role in coordinator.roles]
            strategy = strategy.among(roles, len(coordinator.member) if server.secure_aggregation else 0)
        channel.strategy = strategy
        ledger.record("start", [_started(coordinator, roster)])
        if coordinator.basis.kind == "anchored":
            channel.prepare = prepare_with(channel, coordinator, roster, ledger)
        run_rounds(
            strategy,
            _under_masks(channel, coordinator) if server.secure_aggregation else channel,
            ledger,
            rounds=server.rounds,
            min_clients=server.min_clients,
            choose=draw_from(strategy, server.participation, server.min_clients, coordinator.seed),
        )
        finished: Event = {"event": "run_finished", "rounds": server.rounds, "table": _table(ledger, roster)}
        ledger.record("finish", [{**finished, "seconds": round(time.perf_counter() - began, 3)}])
    finally:
        ledger.close()
    write_report(folder)
    return folder


def _under_masks(channel: GridChannel, coordinator: Coordinator) -> Channel:
    from h2tune.federation.secagg.channel import MaskedChannel
    from h2tune.flower.coordinator.secure import GridCarrier

    return MaskedChannel(
        GridCarrier(channel),
        coordinator.name,
        threshold=coordinator.server.min_clients,
        members=len(coordinator.member),
        roles=[role for role in ROLES if role in coordinator.roles],
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
    if not file.exists():
        return
    old = load_coordinator(file)
    one, two = (
        c.settings.model_dump() | {"roles": c.roles, "basis.texts": c.basis.texts} for c in (old, coordinator)
    )
    for settings in (one, two):
        del settings["server"]["rounds"]
    if (
        coordinator.server.secure_aggregation
    ):  # it sets the quantisation step of what members have kept already
        one["number of members"], two["number of members"] = len(old.member), len(coordinator.member)
    if one != two:
        differing = [key for key in one if one[key] != two[key]]
        raise H2TuneError(
            f"the run in this folder had another {', '.join(differing)}",
            where=str(file.parent),
            remedy="Put it back, or name another folder in the coordinator's file",
        )


def _started(coordinator: Coordinator, roster: Roster) -> Event:
    return {
        "event": "run_started",
        "name": coordinator.name,
        "version": __version__,
        "seed": coordinator.seed,
        "strategy": coordinator.server.strategy,
        "rounds": coordinator.server.rounds,
        "shared_rank": coordinator.server.shared_rank,
        "slots": coordinator.server.slots,
        "roles": [role for role in ROLES if role in coordinator.roles],
        "alternation": coordinator.experimental.alternation,
        "mask": coordinator.experimental.mask,
        "wire_dtype": coordinator.server.wire_dtype,
        "clients": [_facts(card, coordinator) for _, card in sorted(roster.cards.items())],
    }


def _facts(card: Card, coordinator: Coordinator) -> dict[str, Any]:
    facts = card.facts
    if coordinator.server.secure_aggregation:  # it was not told
        facts["examples"] = {key: value for key, value in facts["examples"].items() if key != "train"}
    return facts


def _table(ledger: RunStore, roster: Roster) -> list[dict[str, Any]]:
    scores: dict[tuple[Any, Any], Any] = {}
    for event in read_events(ledger.events_file):
        if event["event"] == "evaluated":
            scores[event.get("client"), event.get("stage")] = event.get("accuracy")
    return [
        {
            "client": name,
            "before": scores.get((name, "before")),
            "alone": None,
            "federated": scores.get((name, "trained")),
            "majority": card.majority_accuracy,
        }
        for name, card in sorted(roster.cards.items())
    ]
