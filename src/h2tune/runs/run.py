"""Run a federation from one file: the main job, in Python as on the command line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from h2tune import files
from h2tune.config import FederationConfig, dump, load
from h2tune.events import Event, read_events
from h2tune.federation.client_round import LocalClient, attach, majority
from h2tune.federation.h2tune.basis import agree_on_basis, anchor_texts
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import kept_readings
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.rounds import Channel, Choice, draw_from, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.federation.strategy import Strategy
from h2tune.runs.build import build_strategy
from h2tune.runs.plan import Plan, check_same, planned, started
from h2tune.training.local import unscanned
from h2tune.training.terms import Progress


class Display(Protocol):
    """Shows a run while it goes on."""

    def notice(self, event: Event) -> None: ...
    def starting(self, stage: str, round_number: int, client: str) -> None: ...
    def progress(self, client: str) -> Progress: ...


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: The run folder.
        table: Per client its accuracy before training, alone (or None), federated, and of the majority label.
    """

    folder: Path
    table: list[dict[str, Any]]

    @property
    def events(self) -> list[Event]:
        """The run's events."""
        return read_events(self.folder / "events.jsonl")


def run(
    federation: FederationConfig | str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    display: Display | None = None,
) -> Run:
    """Run a federation: train, aggregate, evaluate, export and report.

    Args:
        federation: A federation file, or what `config.load` returned.
        overrides: Changes such as `"train.learning_rate=1e-4"`.
        out: The run folder; `runs/NAME` by default.
        resume: Go on with an interrupted run; what is finished is not done again.
        strict: Make an error of every warning that federation does not happen as it should.
        display: Shows what happens.

    Raises:
        H2TuneError: Before training, for everything in the file that cannot work; later, if a round fails.
    """
    if not isinstance(federation, FederationConfig):
        federation = load(Path(federation), overrides)
    folder = Path(out) if out is not None else Path("runs") / federation.name
    plan = planned(federation)
    if resume:
        check_same(folder / "config.toml", federation)
    ledger = RunStore(folder, resume=resume)
    try:
        files.write_text(folder / "config.toml", tomli_w.dumps(dump(federation)))
        with unscanned():
            found = _Job(plan, ledger, strict, display).work()
    finally:
        ledger.close()
    from h2tune.report import write_report

    write_report(folder)
    return Run(folder, found)


class _Job:
    """The work of a run in an open folder; what is finished there is not done again.

    Args:
        plan: What there is to do.
        ledger: The run folder.
        strict: Whether a warning is an error.
        display: Shows what happens.
    """

    def __init__(self, plan: Plan, ledger: RunStore, strict: bool, display: Display | None) -> None:
        self.plan, self.ledger, self.strict, self.display = plan, ledger, strict, display
        self.notice = display.notice if display else None
        self.models = BaseModels(plan.federation.seed)

    def work(self) -> list[dict[str, Any]]:
        """Train, aggregate, evaluate and export; return the table of the last event."""
        plan, server = self.plan, self.plan.federation.server
        began = time.perf_counter()
        self.ledger.record("start", [started(plan)], self.notice)
        federated = self._engine(plan.members, plan.strategy, "trained")
        self._agree(federated)
        choose = draw_from(plan.strategy, server.participation, server.min_clients, plan.federation.seed)
        self._rounds(federated, plan.federation, choose, "server")
        if plan.federation.experimental.alone:
            self._alone(federated, choose)
        for member in plan.members:
            folder = self.ledger.folder / "clients" / member.name
            export_adapters(federated, member, server.rounds, folder)
        found = _table(read_events(self.ledger.events_file), plan.members)
        finished = {"event": "run_finished", "rounds": server.rounds, "table": found}
        finished["seconds"] = round(time.perf_counter() - began, 3)
        self.ledger.record("finish", [finished], self.notice)
        return found

    def _engine(
        self, members: Sequence[LocalClient], method: Strategy, stage: str, first: LocalEngine | None = None
    ) -> LocalEngine:
        display = self.display
        return LocalEngine(
            members,
            {s.client.name: s.client.dtype for s in self.plan.seen},
            method,
            self.models,
            self.ledger,
            stage=stage,
            first=first,
            keep_first=stage == "trained",  # a run may be resumed with training alone
            progress=display.progress if display else None,
            starting=(lambda r, c: display.starting(stage, r, c)) if display else None,
        )

    def _agree(self, federated: LocalEngine) -> None:
        """Agree on the frames of an anchored basis."""
        federation = self.plan.federation
        if federation.anchored:
            texts = anchor_texts(federation.basis.texts, federation.basis.count, federation.seed)
            reader = ModelReader(federated.base_of, texts, kept=kept_readings())
            agree_on_basis(self.plan.members, reader, self.plan.shared_rank, self.ledger, notice=self.notice)

    def _alone(self, federated: LocalEngine, choose: Choice) -> None:
        """Train every client by itself, in the rounds in which it trained in the federation."""
        plan, federation = self.plan, self.plan.federation
        chosen = [frozenset(choose(number)) for number in range(federation.server.rounds)]
        by_itself = federation.of_one()
        for member, enrolled in zip(plan.members, plan.enrolments, strict=True):
            single = build_strategy(by_itself, [enrolled], plan.shared_rank, plan.slots)
            engine = self._engine([member], single, "alone", federated)
            path = f"clients/{member.name}/alone/server"
            self._rounds(engine, by_itself, _only(member.name, chosen), path)

    def _rounds(self, engine: LocalEngine, federation: FederationConfig, choose: Choice, path: str) -> None:
        server = federation.server
        channel: Channel = engine
        if server.secure_aggregation:
            from h2tune.federation.secagg.channel import MaskedChannel
            from h2tune.federation.secagg.local import LocalCarrier

            channel = MaskedChannel(
                LocalCarrier(engine),
                federation.name,
                threshold=server.min_clients,
                members=len(federation.client),
                roles=getattr(engine.strategy, "roles", ()),
            )
        run_rounds(
            engine.strategy,
            channel,
            self.ledger,
            rounds=server.rounds,
            min_clients=server.min_clients,
            choose=choose,
            path=path,
            stage=engine.stage,
            strict=self.strict,
            notice=self.notice,
        )


def _only(client: str, chosen: Sequence[frozenset[str]]) -> Choice:
    """Return the same rounds with one client: alone it trains when it would have in the federation, and no more."""
    return lambda round_number: [client] if client in chosen[round_number] else []


def _table(events: Iterable[Event], members: Sequence[LocalClient]) -> list[dict[str, Any]]:
    """Return per client its accuracy before training, alone (or None), federated, and of the majority label."""
    last: dict[tuple[str, str], float] = {}
    for event in events:
        if event["event"] == "evaluated":
            key = (event["client"], event["stage"])
            if event["stage"] != "before" or key not in last:
                last[key] = event["accuracy"]
    return [
        {
            "client": member.name,
            "before": last.get((member.name, "before")),
            "alone": last.get((member.name, "alone")),
            "federated": last.get((member.name, "trained")),
            "majority": majority(member.scored),
        }
        for member in members
    ]


def export_adapters(engine: LocalEngine, member: LocalClient, rounds: int, folder: Path) -> None:
    """Write a client's adapter in PEFT's format and as plain LoRA."""
    from h2tune.adapter.export import save_adapter, save_lora
    from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel

    state = engine.last_state(member.name, rounds)
    if state is None:
        return  # it never finished a round; its failures are in the events
    base, tokenizer = engine.base_of(member)
    participant = attach(base, member, engine.strategy, state, engine.frames(member.name))
    try:
        save_adapter(participant.model, folder / "adapter")
        if isinstance(participant, H2TuneAdaptedModel):
            save_lora(participant.model, folder / "lora")
        else:
            save_adapter(participant.model, folder / "lora")
        for name in ("adapter", "lora"):
            tokenizer.save_pretrained(folder / name)
    finally:
        participant.detach()
