"""A run's events → one HTML file that works offline: no script, no request, text from events always escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from h2tune import files
from h2tune.events import read_events
from h2tune.report import formats, tables
from h2tune.report.events import view
from h2tune.report.sections import sections, summary
from h2tune.report.view import View


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Args:
        run_folder: A run folder; its `events.jsonl` is all that is read.
        out: The file to write; `report.html` in the run folder by default.

    Raises:
        H2TuneError: There are no events, or one of them was altered.
    """
    shown = view(read_events(run_folder / "events.jsonl"))
    target = out if out is not None else run_folder / "report.html"
    files.write_text(target, render(shown))
    return target


def render(shown: View) -> str:
    """Return the page of a run."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("h2tune.report")
    style = (folder / "report.css").read_text(encoding="utf-8")
    checksum = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    return template.render(
        name=shown.name or "run",
        style=Markup(style),  # noqa: S704 - a file of ours
        style_hash=checksum,
        line=_line(shown),
        state=_state(shown),
        finished=_state(shown) == "finished",
        tiles=_tiles(shown),
        summary=summary(shown),
        failures=tables.notices(shown.failures, codes=False),
        warnings=tables.notices(shown.warnings, codes=True),
        failure_count=formats.plural(len(shown.failures), "failure"),
        warning_count=formats.plural(len(shown.warnings), "warning"),
        sections=sections(shown),
        version=shown.version,
    )


def _line(shown: View) -> str:
    """Return what ran, in one line."""
    if shown.comparison:
        methods = len({row.method for row in shown.compared})
        seeds = [formats.plural(shown.compared_seeds, "seed")] if shown.compared_seeds else []
        return " · ".join([formats.plural(methods, "method"), *seeds, f"{shown.split} split"])
    families = ", ".join(dict.fromkeys(client.family for client in shown.clients if client.family))
    parts = [formats.plural(len(shown.clients), "client") + (f" ({families})" if families else "")]
    parts.append(formats.plural(shown.rounds, "round"))
    parts += [f"strategy {shown.strategy}"] if shown.strategy else []
    parts += [f"seed {shown.seed}"] if shown.seed is not None else []
    started = formats.moment(shown.started)
    parts += [f"started {started}"] if started else []
    return " · ".join(parts)


def _state(shown: View) -> str:
    if shown.finished or (shown.comparison and _all_seeds(shown)):
        return "finished"
    if shown.comparison:
        return f"not finished: not every method has {formats.plural(shown.compared_seeds or 0, 'seed')}"
    done, planned = len(shown.aggregates), max(shown.planned or 0, shown.rounds)
    if planned and done >= planned:
        return f"not finished: {formats.plural(done, 'round')} aggregated, the rest goes on"
    return f"not finished: {done} of {formats.plural(planned, 'round')} aggregated"


def _all_seeds(shown: View) -> bool:
    """Whether every row of a comparison rests on all its seeds."""
    return all(row.seeds == shown.compared_seeds for row in shown.compared)


def _tiles(shown: View) -> list[tuple[str, str, str]]:
    """Return the numbers to read first: (name, value, what it means)."""
    if shown.comparison:
        return [
            (f"{row.method} − {shown.reference or 'reference'}, mean", f"{formats.points(row.difference)} points",
             tables.between(row.difference_low, row.difference_high))
            for row in shown.compared if not row.client and row.difference is not None
        ]  # fmt: skip
    tiles = []
    gains = [gap for gap, _ in tables.gains(shown)]
    if gains:
        base = "alone" if any(c.alone for c in shown.clients) else "before"
        many = len(gains) > 1
        span = f"{formats.points(min(gains))} to {formats.points(max(gains))} by client" if many else ""
        name = f"Federated − {base}" + (", mean" if many else "")
        tiles.append((name, f"{formats.points(sum(gains) / len(gains))} points", span))
    rounds = [t for client in shown.clients for t in client.trained.values()]
    if rounds:
        up, down = (
            sum(sizes) / len(rounds)
            for sizes in ([t.bytes_up for t in rounds], [t.bytes_down for t in rounds])
        )
        tiles.append(("Sent per client and round", formats.size(up), f"received {formats.size(down)}"))
        spent = sum(sum(t.seconds.values()) for t in rounds) + sum(
            a.seconds or 0 for a in shown.aggregates.values()
        )
        alone = sum(sum(t.seconds.values()) for c in shown.clients for t in c.trained_alone.values())
        told = f"and {formats.duration(alone)} for training alone" if alone else "all clients and the server"
        tiles.append(("Computing time", formats.duration(spent), told))
    failed = formats.plural(len(shown.failures), "failure")
    tiles.append(("Problems", failed, formats.plural(len(shown.warnings), "warning")))
    return tiles
