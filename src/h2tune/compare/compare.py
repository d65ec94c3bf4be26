"""Methods × seeds, each an ordinary run folder: finished runs are reused, interrupted runs are resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from h2tune.compare.comparison import Comparison
from h2tune.compare.methods import as_local, parse_methods, reference_of
from h2tune.compare.plan import PlannedRun, notes_of, planned_runs
from h2tune.compare.results import read_result
from h2tune.config import FederationConfig, Stated
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.runs.pins import pinned

if TYPE_CHECKING:
    from h2tune.monitors.monitor import Monitor

Displays = Callable[[FederationConfig], AbstractContextManager["Monitor"]]


def compare(
    federation: Stated | str | Path,
    methods: Sequence[str],
    *,
    seeds: int = 5,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    against: str | None = None,
    split: str | None = None,
    jobs: int | None = None,
    notice: Callable[[str], None] | None = None,
    displays: Displays | None = None,
) -> Comparison:
    """Run methods on the same seeds and compare them.

    With one seed all methods have the same examples, in the same order, and the same A at the start. The seeds are
    counted up from the federation file's own. All methods run with a seed before the next one, and the tables are
    written after each seed, so that an interrupted comparison has tables too.

    Args:
        federation: A federation file, or a `Federation`.
        methods: As `methods.parse_methods` takes them.
        seeds: Number of seeds.
        overrides: Overrides of the file for all methods.
        out: Folder of the comparison; `runs/NAME-compare` by default.
        against: The method to which differences are taken; `local` by default, or the first.
        split: "test" or "validation"; by default as the file says.
        jobs: Worker processes in which a run's clients train side by side; None to train in this process.
        notice: Called with a line of text before each run.
        displays: Returns the display of a run.

    Raises:
        H2TuneError: Before training, for a file or method that is not valid; a failed run is listed in `problems`.
    """
    stated = federation if isinstance(federation, Stated) else Stated.read(Path(federation))
    comparison, runs = _planned(stated, methods, seeds, overrides, out, against, split)
    for run in runs:
        run.check_settings()
    began = time.time()
    from h2tune.runs.jobs import workers

    with workers(jobs):
        for number, run in enumerate(runs, start=1):
            if notice:
                notice(f"{run.name} · seed {run.seed} · run {number} of {len(runs)}")
            _run(comparison, run, jobs, displays)
            if number == len(runs) or runs[number].seed != run.seed:
                comparison.write(began)
    return comparison


def _planned(
    stated: Stated,
    texts: Sequence[str],
    seeds: int,
    overrides: Sequence[str],
    out: str | Path | None,
    against: str | None,
    split: str | None,
) -> tuple[Comparison, list[PlannedRun]]:
    methods = parse_methods(texts)
    reference = reference_of(methods, against)
    changes = [*overrides, *([f'data.evaluate="{split}"'] if split else [])]
    first = stated.resolved(changes)
    default = f"{first.name}-compare" + ("-validation" if split == "validation" else "")
    folder = Path(out) if out is not None else Path("runs") / default
    names = [client.name for client in first.sorted_clients()]
    notes = notes_of(methods, stated, changes)
    # where no client shares, all train as `local` does: its runs are used, and nothing is trained twice
    methods = [as_local(m) if all((m.label, name) in notes for name in names) else m for m in methods]
    values = [first.seed + number for number in range(seeds)]
    comparison = Comparison(
        folder,
        first.name,
        first.data.evaluate,
        reference.label,
        methods,
        values,
        names,
        notes=notes,
        federation=_settings(first),
        members=_members(first),
    )
    runs = planned_runs(stated, changes, methods, values, folder)
    folders = [run.folder for run in runs]
    return comparison, [replace(run, federation=pinned(run.federation, folders)) for run in runs]


def _settings(federation: FederationConfig) -> dict[str, str]:
    """Return the settings of a federation file by dotted key, as text."""
    plain = federation.model_dump(mode="json", exclude={"client", "name", "seed"}, exclude_none=True)
    return {
        f"{section}.{key}": value if isinstance(value, str) else json.dumps(value)
        for section, content in plain.items()
        for key, value in (content.items() if isinstance(content, dict) else ())
    }


def _members(federation: FederationConfig) -> list[dict[str, str]]:
    """Return name, model, task and rank of each client."""
    return [
        {
            "name": c.name,
            "model": c.model,
            "task": c.task if isinstance(c.task, str) else c.task.describe().name,
            "rank": str(c.rank),
        }
        for c in federation.sorted_clients()
    ]


def _run(comparison: Comparison, planned: PlannedRun, jobs: int | None, displays: Displays | None) -> None:
    """Run what is not finished yet, and add the results to the comparison."""
    from h2tune.runs.run import run

    try:
        if not planned.is_done():
            with displays(planned.federation) if displays else nullcontext() as display:
                watching = [display] if display else []
                run(planned.federation, out=planned.folder, resume=True, jobs=jobs, monitors=watching)
        events = read_events(planned.folder / "events.jsonl")
    except (H2TuneError, RuntimeError, ValueError, ArithmeticError) as error:
        # a run that fails must not end the comparison
        reason = " ".join(f"{type(error).__name__}: {error}".removeprefix("H2TuneError: ").split())
        comparison.problems += [(method.label, planned.seed, reason) for method in planned.methods]
        return
    for method in planned.methods:
        result = read_result(events, method.stage)
        comparison.problems += [(method.label, planned.seed, problem) for problem in result.problems]
        comparison.results.setdefault(method.label, {})[planned.seed] = result
