"""Methods × seeds, each an ordinary run folder: what is finished is not run again, what was stopped goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h2tune import files
from h2tune._version import __version__
from h2tune.compare.methods import Method, as_local, parse_methods, reference_of
from h2tune.compare.results import RunResult, is_finished, read_result
from h2tune.compare.rows import Row, rows_of
from h2tune.compare.tables import csv_text, event_of, markdown
from h2tune.config import FederationConfig, load, load_resolved
from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from h2tune.runs.run import Display

Displays = Callable[[FederationConfig], AbstractContextManager["Display"]]


@dataclass
class Comparison:
    """A comparison, finished or as far as it got.

    Args:
        folder: Its folder; the runs are in METHOD/seed-N below it.
        name: Name of the federation.
        split: The split that was scored.
        reference: Label of the method that differences are taken to.
        methods: What is compared, in order.
        seeds: The seeds, in order.
        clients: Names of the clients.
        results: Method → seed → result.
        notes: (method, client) → how it takes part, such as why it shares nothing.
        problems: (method, seed, one line): runs and clients that failed.
    """

    folder: Path
    name: str
    split: str
    reference: str
    methods: list[Method]
    seeds: list[int]
    clients: list[str]
    results: dict[str, dict[int, RunResult]] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[tuple[str, int, str]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Return the rows of the table."""
        return rows_of(self.results, self.reference, self.clients, self.notes, self.seeds[0])

    def facts(self) -> dict[str, Any]:
        """Return what a table says beside its rows."""
        return {
            "name": self.name,
            "split": self.split,
            "reference": self.reference,
            "seeds": self.seeds,
            "settings": {m.label: list(m.changes) for m in self.methods if m.changes},
            "notes": [{"method": m, "client": c, "note": n} for (m, c), n in self.notes.items()],
            "problems": [{"method": m, "seed": s, "reason": r} for m, s, r in self.problems],
        }


def compare(
    file: str | Path,
    methods: Sequence[str],
    *,
    seeds: int = 5,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    against: str | None = None,
    split: str | None = None,
    tell: Callable[[str], None] | None = None,
    displays: Displays | None = None,
) -> Comparison:
    """Run methods on the same seeds and compare them.

    The same seed gives every method the same examples, the same order of them and the same A at the start. The seeds
    are the federation file's own and those that follow it. All methods take a seed before the next one begins, and the
    tables are written after each, so that a comparison that was stopped has told something.

    Args:
        file: A federation file.
        methods: As `methods.parse_methods` takes them.
        seeds: Number of seeds.
        overrides: Changes to the file for all methods.
        out: Folder of the comparison; `runs/NAME-compare` by default.
        against: The method that differences are taken to; `local` by default, or the first.
        split: "test" or "validation"; by default as the file says.
        tell: Called with a line of text before each run.
        displays: Returns what shows a run.

    Raises:
        H2TuneError: Before any training, for a file or a method that cannot work; a run that fails later is noted.
    """
    parsed = parse_methods(methods)
    reference = reference_of(parsed, against)
    changes = [*overrides, *([f'data.evaluate="{split}"'] if split else [])]
    first = load(Path(file), changes)
    values = [first.seed + i for i in range(seeds)]
    default = f"{first.name}-compare" + ("-validation" if split == "validation" else "")
    folder = Path(out) if out is not None else Path("runs") / default
    names = [client.name for client in first.sorted_clients()]
    found = Comparison(folder, first.name, first.data.evaluate, reference.label, parsed, values, names)
    found.notes = _notes(parsed, Path(file), changes)
    # where no client shares, clients train as `local` does: its runs serve, and nothing is trained twice
    parsed = [as_local(m) if all((m.label, name) in found.notes for name in names) else m for m in parsed]
    found.methods = parsed
    federations = {
        (method.folder, seed): _federation(Path(file), changes, method, parsed, seed)
        for method in parsed
        for seed in values
    }
    for (name, seed), federation in federations.items():
        _check_run(_run_folder(folder, name, seed), federation)
    began, done = time.time(), 0
    for seed in values:
        for name in dict.fromkeys(method.folder for method in parsed):
            done += 1
            if tell:
                tell(f"{name} · seed {seed} · run {done} of {len(federations)}")
            run_folder, federation = _run_folder(folder, name, seed), federations[name, seed]
            of_run = [method for method in parsed if method.folder == name]
            _one(found, of_run, seed, run_folder, federation, displays)
        write(found, began)
    return found


def write(found: Comparison, began: float) -> None:
    """Write `comparison.md`, `comparison.csv`, the event and the report into the comparison's folder."""
    from h2tune.report import write_report

    rows, facts = found.rows(), found.facts()
    files.write_text(found.folder / "comparison.md", markdown(rows, facts))
    files.write_text(found.folder / "comparison.csv", csv_text(rows))
    files.write_text(found.folder / "events.jsonl", event_of(rows, facts, __version__, began))
    write_report(found.folder)


def _one(
    found: Comparison,
    methods: Sequence[Method],
    seed: int,
    folder: Path,
    federation: FederationConfig,
    displays: Displays | None,
) -> None:
    """Run one seed of the methods that share its runs, if it is not there, and read its results."""
    from h2tune.events import read_events
    from h2tune.runs.run import run

    try:
        if not _is_done(folder, federation):
            with displays(federation) if displays else nullcontext() as display:
                run(federation, out=folder, resume=True, display=display)
        events = read_events(folder / "events.jsonl")
    except (H2TuneError, RuntimeError, ValueError, ArithmeticError) as error:
        # one method's trouble is not the comparison's
        reason = " ".join(f"{type(error).__name__}: {error}".removeprefix("H2TuneError: ").split())
        found.problems += [(method.label, seed, reason) for method in methods]
        return
    for method in methods:
        result = read_result(events, method.stage)
        found.problems += [(method.label, seed, problem) for problem in result.problems]
        found.results.setdefault(method.label, {})[seed] = result


def _federation(
    file: Path, changes: Sequence[str], method: Method, methods: Iterable[Method], seed: int
) -> FederationConfig:
    """Return what a method runs with a seed; also alone, if that is one of the methods."""
    alone = any(m.stage == "alone" and m.folder == method.folder for m in methods)
    own = [f'server.strategy="{method.strategy}"', f"experimental.alone={str(alone).lower()}", f"seed={seed}"]
    try:
        return load(file, [*changes, *method.changes, *own])
    except H2TuneError as error:
        where = f"method '{method.text}', {error.where}"
        raise H2TuneError(error.message, where=where, remedy=error.remedy) from None


def _run_folder(folder: Path, name: str, seed: int) -> Path:
    return folder / name / f"seed-{seed}"


def _check_run(folder: Path, federation: FederationConfig) -> None:
    """Refuse a folder whose run was of other settings, before anything is trained."""
    path = folder / "config.toml"
    if path.exists():
        from h2tune.runs.plan import sorted_dump
        from h2tune.runs.same import flat, refuse_other_settings

        # whether clients also train alone changes nothing else
        old, new = (flat(sorted_dump(f), ("experimental.alone",)) for f in (load_resolved(path), federation))
        refuse_other_settings(
            old, new, where=str(folder), remedy="Put the settings back, or name another --out"
        )


def _is_done(folder: Path, federation: FederationConfig) -> bool:
    """Return whether a finished run is there, with the training alone if that is wanted."""
    from h2tune.events import read_events

    if not (folder / "config.toml").exists() or not (folder / "events.jsonl").exists():
        return False
    there = load_resolved(folder / "config.toml")
    if federation.experimental.alone and not there.experimental.alone:
        return False
    return is_finished(read_events(folder / "events.jsonl"))


def _notes(methods: Sequence[Method], file: Path, changes: Sequence[str]) -> dict[tuple[str, str], str]:
    """Ask each method how each client takes part; what cannot be built says so before anything is trained."""
    from h2tune.runs.build import build_strategy
    from h2tune.runs.enrol import enrol_all

    notes = {}
    for method in methods:
        federation = _federation(file, changes, method, methods, 0)
        _, enrolments, size, slots = enrol_all(federation)
        strategy = build_strategy(federation, enrolments, size, slots)
        for enrolment in enrolments:
            note = "" if method.stage == "alone" else strategy.note(enrolment.name)
            if note:
                notes[method.label, enrolment.name] = note
    return notes
