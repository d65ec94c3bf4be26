"""Run a federation from one file: the main job, in Python as on the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from h2tune import __version__, files
from h2tune.config import Federation, Privacy, dump, load, load_resolved, parse
from h2tune.errors import H2TuneError
from h2tune.federation.basis import Reader, agree_on_basis, anchor_texts
from h2tune.federation.client import Member, attach, majority
from h2tune.federation.embedded import BaseModels, Embedded
from h2tune.federation.enrol import (
    Seen,
    build_strategy,
    enrol_all,
    load_member,
    trainable_in,
)
from h2tune.federation.ledger import Event, Ledger
from h2tune.federation.server import Channel, Choice, draw_from, run_rounds
from h2tune.federation.strategy import Strategy, note_of
from h2tune.federation.update import Enrolment
from h2tune.report.events import read_events
from h2tune.training.local import try_arguments
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
    federation: Federation | str | Path,
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
    if not isinstance(federation, Federation):
        federation = load(Path(federation), overrides)
    folder = Path(out) if out is not None else Path("runs") / federation.name
    seen, enrolments, size, slots = enrol_all(federation)
    try_arguments(federation.train.arguments)
    strategy = build_strategy(federation, enrolments, size, slots)
    members = [load_member(s, e, federation) for s, e in zip(seen, enrolments, strict=True)]
    if resume:
        _check_same(folder / "config.toml", federation)
    ledger = Ledger(folder, resume=resume)
    try:
        files.write_text(folder / "config.toml", tomli_w.dumps(dump(federation)))
        notice = display.notice if display else None
        began = time.perf_counter()
        started = _started(federation, seen, enrolments, members, strategy, size, slots)
        ledger.record("start", [started], notice)
        models = BaseModels(federation.seed)
        dtypes = {s.client.name: s.client.dtype for s in seen}

        def engine(
            some: Sequence[Member], method: Strategy, stage: str, first: Embedded | None = None
        ) -> Embedded:
            return Embedded(
                some,
                dtypes,
                method,
                models,
                ledger,
                stage=stage,
                first=first,
                progress=display.progress if display else None,
                starting=(lambda r, c: display.starting(stage, r, c)) if display else None,
            )

        federated = engine(members, strategy, "trained")
        if federation.anchored:
            texts = anchor_texts(federation.basis.texts, federation.basis.count, federation.seed)
            agree_on_basis(members, Reader(federated.base_of, texts), size, ledger, notice=notice)
        server = federation.server
        choose = draw_from(strategy, server.participation, server.min_clients, federation.seed)
        _rounds(federated, federation, ledger, choose, "server", strict, notice)
        if server.alone:
            # nobody to bear, and nothing that leaves: no robust rule and no noise
            by_itself = federation.model_copy(update={"server": server.of_one(), "privacy": Privacy()})
            for member, enrolled in zip(members, enrolments, strict=True):
                single = build_strategy(by_itself, [enrolled], size, slots)
                alone = engine([member], single, "alone", federated)
                path = f"clients/{member.name}/alone/server"
                _rounds(alone, by_itself, ledger, _only(member.name, choose), path, strict, notice)
        for member in members:
            export_adapters(federated, member, server.rounds, folder / "clients" / member.name)
        table = _table(ledger, members, federation)
        finished = {"event": "run_finished", "rounds": server.rounds, "table": table}
        finished["seconds"] = round(time.perf_counter() - began, 3)
        ledger.record("finish", [finished], notice)
    finally:
        ledger.close()
    from h2tune.report import write_report

    write_report(folder)
    return Run(folder, table)


def _only(client: str, choose: Choice) -> Choice:
    """Return the same rounds with one client: alone it trains when it would have in the federation, and no more."""
    return lambda round_number: [name for name in choose(round_number) if name == client]


def _rounds(
    engine: Embedded,
    federation: Federation,
    ledger: Ledger,
    choose: Choice,
    path: str,
    strict: bool,
    notice: Callable[[Event], None] | None,
) -> None:
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
        ledger,
        rounds=server.rounds,
        min_clients=server.min_clients,
        choose=choose,
        path=path,
        stage=engine.stage,
        strict=strict,
        notice=notice,
    )


def _check_same(path: Path, federation: Federation) -> None:
    """Refuse to go on with the run of another federation file; more rounds, or also training alone, are fine."""
    if not path.exists():
        return
    old, new = load_resolved(path), parse(dump(federation), str(path))
    differing = [
        f"{section}.{key}"
        for section in ("server", "adapter", "basis", "train", "data", "privacy")
        for key, value in getattr(new, section).model_dump().items()
        if value != getattr(old, section).model_dump()[key]
        and (section, key) not in (("server", "rounds"), ("server", "alone"))
    ]
    differing += [key for key in ("name", "seed") if getattr(old, key) != getattr(new, key)]
    differing += ["client"] if old.sorted_clients() != new.sorted_clients() else []
    if differing:
        raise H2TuneError(
            f"the run that is to go on had another {', '.join(differing)}",
            where=str(path),
            remedy="Put it back, or start anew with another --out",
        )


def _started(
    federation: Federation,
    seen: Sequence[Seen],
    enrolments: Sequence[Enrolment],
    members: Sequence[Member],
    strategy: Strategy,
    size: int,
    slots: int,
) -> Event:
    return {
        "event": "run_started",
        "name": federation.name,
        "version": __version__,
        "seed": federation.seed,
        "strategy": strategy.name,
        "rounds": federation.server.rounds,
        "shared_rank": size,
        "slots": slots,
        "roles": list(getattr(strategy, "roles", ())),
        "alternation": federation.train.alternation,
        "mask": federation.adapter.mask,
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
                "trainable_parameters": trainable_in(federation, s, e.rank, size, slots),
                "note": note_of(strategy, e.name),
                "majority_accuracy": majority(member.scored),
            }
            for s, e, member in zip(seen, enrolments, members, strict=True)
        ],
    }


def export_adapters(engine: Embedded, member: Member, rounds: int, folder: Path) -> None:
    """Write a client's adapter in PEFT's format and as plain LoRA."""
    from h2tune.adapter.export import save_adapter, save_lora
    from h2tune.federation.participant import H2TuneParticipant

    state = engine.last_state(member.name, rounds)
    if state is None:
        return  # it never finished a round; its failures are in the events
    base, tokenizer = engine.base_of(member)
    participant = attach(base, member, engine.strategy, state)
    try:
        save_adapter(participant.model, folder / "adapter")
        if isinstance(participant, H2TuneParticipant):
            save_lora(participant.model, folder / "lora")
        else:
            save_adapter(participant.model, folder / "lora")
        for name in ("adapter", "lora"):
            tokenizer.save_pretrained(folder / name)
    finally:
        participant.detach()


def _table(ledger: Ledger, members: Sequence[Member], federation: Federation) -> list[dict[str, Any]]:
    last: dict[tuple[str, str], float] = {}
    for event in read_events(ledger.events_file):
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
