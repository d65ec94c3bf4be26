"""Run a federation from one file: train, aggregate, evaluate, export and report."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from h2tune import files
from h2tune.config import FederationConfig, Stated, dump, load
from h2tune.errors import H2TuneError
from h2tune.events import Event, read_events
from h2tune.federation.channel import Channel
from h2tune.federation.h2tune.basis import (
    anchor_texts,
    compute_coordinates,
    compute_frames,
    coordinate_count,
)
from h2tune.federation.h2tune.model_reader import ROOM, ModelReader
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.local_client import LocalClient, majority
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.rounds import Choice, Schedule, draw_from, raise_first_problem, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.federation.strategy import Strategy
from h2tune.federation.teaching.exchange import NO_COORDINATES, TeachingExchange, teach
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.federation.text_checks import check_texts
from h2tune.monitors.load import monitors_of, watching
from h2tune.monitors.monitor import Monitor
from h2tune.report.view.traffic import traffic_by_client
from h2tune.runs import default_folder
from h2tune.runs.adapters import export_adapters
from h2tune.runs.build import build_strategy
from h2tune.runs.jobs import PooledEngine, Workers, workers
from h2tune.runs.pins import pinned
from h2tune.runs.plan import Plan, open_store, planned, started
from h2tune.runs.record import accuracy_table
from h2tune.runs.steps import first_rounds_reused, steps_done, total_steps
from h2tune.training.garbage import garbage_collection_frozen

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: The run folder.
        table: Each client's accuracy before training, alone (or None), federated, and of the majority label.
    """

    folder: Path
    table: list[dict[str, Any]]

    @property
    def events(self) -> list[Event]:
        """The run's events."""
        return read_events(self.folder / "events.jsonl")

    def frame(self) -> pandas.DataFrame:
        """Return the run's events as a pandas DataFrame: a row for each event, a column for each key.

        Raises:
            H2TuneError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise H2TuneError("pandas is not installed", where="frame", remedy="pip install pandas") from None
        return pandas.DataFrame(self.events)


def run(
    federation: FederationConfig | Stated | str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    from_round: int | None = None,
    strict: bool = False,
    jobs: int | None = None,
    monitors: Sequence[Monitor] = (),
) -> Run:
    """Run a federation: train, aggregate, evaluate, export and report.

    Args:
        federation: A federation file, a `Federation`, or what `config.load` returns.
        overrides: Changes such as `"train.learning_rate=1e-4"`.
        out: The run folder; `runs/NAME` by default.
        resume: Resume an interrupted run; finished work is not repeated.
        from_round: Resume it from before this round (from 0), and set aside what came of it and of those after it.
        strict: Raise an error for each warning of a round's checks, and for a client that fails.
        jobs: Worker processes in which clients train side by side, one thread each; None to train in this process.
        monitors: Watch the run, besides those that the federation file names.

    Raises:
        H2TuneError: Before training, for a setting that cannot work; later, if a round fails.
    """
    if isinstance(federation, Stated):
        federation = federation.resolved(overrides)
    elif not isinstance(federation, FederationConfig):
        federation = load(Path(federation), overrides)
    folder = Path(out) if out is not None else default_folder(federation.name)
    federation = pinned(federation, [folder])
    watch = monitors_of([*federation.monitors, *monitors])
    plan = planned(federation)
    store = open_store(folder, federation, resume, from_round)
    try:
        files.write_text(folder / "config.toml", tomli_w.dumps(dump(federation)))
        with (
            garbage_collection_frozen(),
            watching(watch, folder, dump(federation)),
            workers(jobs and min(jobs, len(plan.clients))) as pool,
        ):
            table = _Job(plan, store, strict, watch, pool).work()
    finally:
        store.close()
    from h2tune.report import write_report

    write_report(folder)
    return Run(folder, table)


class _Job:
    """The steps of a run in an open run folder; finished steps are not repeated.

    Args:
        plan: The clients, their data and the strategy.
        store: The run folder.
        strict: Whether a warning is an error.
        watch: Watches the run.
        pool: Processes in which clients train; None to train in this one.
    """

    def __init__(
        self, plan: Plan, store: RunStore, strict: bool, watch: Monitor, pool: Workers | None = None
    ) -> None:
        self.plan, self.store, self.strict, self.watch, self.pool = plan, store, strict, watch, pool
        self.notice = watch.on_event
        self.models = BaseModels(plan.federation.seed, plan.federation.trusted)
        server = plan.federation.server
        self.choose = draw_from(server.participation, server.min_clients, plan.federation.seed)
        names = sorted(plan.strategy.enrolments)
        self.chosen = [frozenset(self.choose(names, number)) for number in range(server.rounds)]
        """The clients that train, by round."""

    def work(self) -> list[dict[str, Any]]:
        """Train, aggregate, evaluate and export; return the table of the last event."""
        plan, server = self.plan, self.plan.federation.server
        began = time.perf_counter()
        self._announce_steps(())
        federated = self._engine(plan.clients, plan.strategy, "trained")
        warnings = {client.name: self._check_texts(federated, client) for client in plan.clients}
        self.store.record("start", [started(plan)], self.notice)
        for name, events in warnings.items():
            self.store.record(f"texts/{name}", events, self.notice)
            if self.strict:
                raise_first_problem(events)
        self._agree(federated)
        self._rounds(federated, plan.federation, self.choose, "server")
        if plan.federation.experimental.alone:
            self._alone(federated)
        events = read_events(self.store.events_file)  # once: they grow with the clients
        traffic = traffic_by_client(events)
        for client in plan.clients:
            folder = self.store.folder / "clients" / client.name
            export_adapters(federated, client, server.rounds, folder, traffic)
        majorities = {client.name: majority(client.scored) for client in plan.clients}
        table = accuracy_table(events, majorities)
        finished = {"event": "run_finished", "rounds": server.rounds, "table": table}
        finished["seconds"] = round(time.perf_counter() - began, 3)
        self.store.record("finish", [finished], self.notice)
        return table

    def _check_texts(self, engine: LocalEngine, client: LocalClient) -> list[Event]:
        """Refuse a model that cannot be loaded, and texts that its tokenizer makes useless; return warnings."""
        events = check_texts(client, self.models.tokenizer(client.enrolment.model))
        if "start" not in self.store.logged:  # later, one client's failure must not end the run
            engine.base_of(client)
        return events

    def _engine(
        self,
        clients: Sequence[LocalClient],
        strategy: Strategy[Any],
        stage: str,
        first: LocalEngine | None = None,
    ) -> LocalEngine:
        watch = self.watch
        build = LocalEngine if self.pool is None else partial(PooledEngine, pool=self.pool)
        return build(
            clients,
            {info.client.name: info.client.dtype for info in self.plan.infos},
            strategy,
            self.models,
            self.store,
            stage=stage,
            first=first,
            keep_first=stage == "trained",  # a run may be resumed with training alone
            samples=True,
            progress=lambda client: partial(watch.on_step, client),
            starting=partial(watch.on_turn, stage),
        )

    def _agree(self, federated: LocalEngine) -> None:
        """Agree on the frames of an anchored basis, and prepare the clients' lessons."""
        plan, federation = self.plan, self.plan.federation
        teaching = federation.teaching
        if not federation.anchored and teaching == "none":
            return
        basis = federation.basis
        texts = anchor_texts(basis.texts, basis.count, federation.seed, federation.data.test)
        # what modules read is for frames, which an encoder lets clients compute before anything else
        room = ROOM if federation.anchored and not basis.encoder else 0
        reader = ModelReader(federated.base_of, texts, room, default_reading_cache(), self.watch.on_reading)
        z = NO_COORDINATES
        if federation.anchored or KNOWLEDGE[teaching].needs_coordinates:
            size = coordinate_count(plan.shared_rank, teaching)
            z = compute_coordinates(
                plan.clients, reader, size, self.store, basis.encoder, federation.server.assumed_hostile
            )
        if federation.anchored:
            compute_frames(
                plan.clients,
                reader,
                z,
                plan.shared_rank,
                self.store,
                encoder=basis.encoder,
                notice=self.notice,
            )
        if teaching != "none":
            exchange = TeachingExchange(teaching, reader, self.store, z)
            hostile = federation.server.assumed_hostile
            untaught = teach(plan.clients, exchange, hostile=hostile, notice=self.notice)
            self._announce_steps(untaught)

    def _announce_steps(self, untaught: Collection[str]) -> None:
        """Tell the monitors how many steps are left, as far as it is known which clients take no teacher."""
        reused = first_rounds_reused(self.plan, untaught)
        done = steps_done(read_events(self.store.events_file), reused) if self.store.logged else 0
        self.watch.on_total(max(0, total_steps(self.plan, self.chosen, untaught, reused) - done))

    def _alone(self, federated: LocalEngine) -> None:
        """Train every client that has examples alone, in the rounds in which it trained in the federation."""
        plan, federation = self.plan, self.plan.federation
        without_others = federation.of_one()

        def alone(client: LocalClient) -> None:
            single = build_strategy(without_others, [client.enrolment], plan.shared_rank, plan.slots)
            engine = self._engine([client], single, "alone", federated)
            path = f"clients/{client.name}/alone/server"
            self._rounds(engine, without_others, _only(client.name, self.chosen), path)

        able = [client for client in plan.clients if client.splits.train]
        if self.pool is None:
            for client in able:
                alone(client)
        else:
            self.pool.each(alone, able)

    def _rounds(self, engine: LocalEngine, federation: FederationConfig, choose: Choice, path: str) -> None:
        server = federation.server
        schedule = Schedule(
            server.rounds, server.min_clients, choose, path, engine.stage, self.strict, server.refuse_far
        )
        run_rounds(engine.strategy, _channel(engine, federation), self.store, schedule, self.notice)


def _channel(engine: LocalEngine, federation: FederationConfig) -> Channel:
    """Return the engine, wrapped in a masking channel if secure aggregation is on."""
    server = federation.server
    if not server.secure_aggregation:
        return engine
    from h2tune.federation.secagg.channel import MaskedChannel
    from h2tune.federation.secagg.local import LocalCarrier

    return MaskedChannel(
        LocalCarrier(engine),
        federation.name,
        threshold=server.min_clients,
        clients=len(federation.client),
        roles=engine.strategy.roles,
    )


def _only(client: str, chosen: Sequence[frozenset[str]]) -> Choice:
    """Return a choice of one client, in the rounds in which the federation had chosen it."""
    return lambda _, round_number: [client] if client in chosen[round_number] else []
