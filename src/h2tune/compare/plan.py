"""The runs of a comparison before they start: the federation of each, its folder, and whether it was run already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from h2tune.compare.methods import Method
from h2tune.compare.results import is_finished
from h2tune.config import FederationConfig, Stated, load_resolved
from h2tune.errors import within
from h2tune.events import read_events


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Args:
        methods: The methods whose results are read from it; two at most, h2tune and h2tune-alone.
        seed: Its seed.
        folder: Its run folder.
        federation: Its federation file.
    """

    methods: tuple[Method, ...]
    seed: int
    folder: Path
    federation: FederationConfig

    @property
    def name(self) -> str:
        """Name of the folder of the method's runs."""
        return self.methods[0].folder

    def check_settings(self) -> None:
        """Refuse a folder that holds a run with other settings, before anything is trained.

        Raises:
            H2TuneError: Names the settings that differ.
        """
        path = self.folder / "config.toml"
        if not path.exists():
            return
        from h2tune.runs.plan import sorted_dump
        from h2tune.runs.same import flat, refuse_other_settings

        # whether clients also train alone, or who watches, changes nothing else
        ignored = ("experimental.alone", "monitors")
        old, new = (flat(sorted_dump(f), ignored) for f in (load_resolved(path), self.federation))
        remedy = "Restore the settings, or choose another --out"
        refuse_other_settings(old, new, where=str(self.folder), remedy=remedy)

    def is_done(self) -> bool:
        """Return whether the run is finished, including training alone if that is wanted."""
        config, events = self.folder / "config.toml", self.folder / "events.jsonl"
        if not config.exists() or not events.exists():
            return False
        if self.federation.experimental.alone and not load_resolved(config).experimental.alone:
            return False
        return is_finished(read_events(events))


def planned_runs(
    stated: Stated, changes: Sequence[str], methods: Sequence[Method], seeds: Sequence[int], folder: Path
) -> list[PlannedRun]:
    """Return the runs of a comparison: all methods of a seed before the next seed.

    Args:
        stated: The federation.
        changes: Overrides for all methods.
        methods: The methods.
        seeds: The seeds.
        folder: Folder of the comparison.

    Raises:
        H2TuneError: The overrides of a method are not valid.
    """
    by_folder: dict[str, list[Method]] = {}
    for method in methods:
        by_folder.setdefault(method.folder, []).append(method)
    return [
        PlannedRun(
            tuple(group),
            seed,
            folder / name / f"seed-{seed}",
            # methods of one folder run alike: that of the last one is that of all
            federation_of(stated, changes, group[-1], methods, seed),
        )
        for seed in seeds
        for name, group in by_folder.items()
    ]


def federation_of(
    stated: Stated, changes: Sequence[str], method: Method, methods: Iterable[Method], seed: int
) -> FederationConfig:
    """Return the federation that a method runs with a seed; with training alone, if one of the methods needs it.

    Raises:
        H2TuneError: The overrides of the method are not valid.
    """
    alone = any(m.stage == "alone" and m.folder == method.folder for m in methods)
    own = [f'server.strategy="{method.strategy}"', f"experimental.alone={str(alone).lower()}", f"seed={seed}"]
    with within(f"method '{method.text}'"):
        return stated.resolved([*changes, *method.changes, *own])


def notes_of(methods: Sequence[Method], stated: Stated, changes: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return (method, client) → a line on how the client takes part; clients that share have none.

    Raises:
        H2TuneError: A method cannot be built for these clients.
    """
    from h2tune.runs.build import build_strategy
    from h2tune.runs.enrol import enrol_all

    notes = {}
    for method in methods:
        federation = federation_of(stated, changes, method, methods, 0)
        _, enrolments, size, slots = enrol_all(federation)
        strategy = build_strategy(federation, enrolments, size, slots)
        for enrolment in enrolments:
            note = "" if method.stage == "alone" else strategy.note(enrolment.name)
            if note:
                notes[method.label, enrolment.name] = note
    return notes
