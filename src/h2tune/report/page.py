"""A run folder → one HTML file that works offline: no script, no request, text from events always escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from h2tune import files
from h2tune.events import read_events
from h2tune.report import formats
from h2tune.report.charts import theme
from h2tune.report.sections import results, sections
from h2tune.report.view import ReportView, build_view


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Args:
        run_folder: A run folder; only its `events.jsonl` is read.
        out: The file to write; `report.html` in the run folder by default.

    Raises:
        H2TuneError: There is no log, or a line of it is not an event.
    """
    shown = build_view(read_events(run_folder / "events.jsonl"))
    target = out if out is not None else run_folder / "report.html"
    files.write_text(target, render(shown))
    return target


def render(shown: ReportView) -> str:
    """Return the page of a run."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("h2tune.report")
    style = (folder / "page.css").read_text(encoding="utf-8") + theme.dark_rules()
    checksum = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(
        name=shown.name or "run",
        style=Markup(style),  # noqa: S704 - a file of ours
        style_hash=checksum,
        line=_line(shown),
        state=_state(shown),
        finished=_state(shown) == "finished",
        tiles=_tiles(shown),
        ramp=theme.RAMP,
        paper=theme.PANEL,
        failures=results.notices(shown.failures, codes=False),
        warnings=results.notices(shown.warnings, codes=True),
        failure_count=formats.plural(len(shown.failures), "failure"),
        warning_count=formats.plural(len(shown.warnings), "warning"),
        sections=sections(shown),
        version=shown.version,
    )


def _line(shown: ReportView) -> str:
    """Return in one line what ran."""
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


def _state(shown: ReportView) -> str:
    if shown.finished or (shown.comparison and _all_seeds(shown)):
        return "finished"
    if shown.comparison:
        return f"not finished: not every method has {formats.plural(shown.compared_seeds or 0, 'seed')}"
    done, planned = len(shown.aggregates), max(shown.planned or 0, shown.rounds)
    if planned and done >= planned:
        return f"not finished: {formats.plural(done, 'round')} aggregated, other work remains"
    return f"not finished: {done} of {formats.plural(planned, 'round')} aggregated"


def _all_seeds(shown: ReportView) -> bool:
    """Whether every row of a comparison has all its seeds."""
    return all(row.seeds == shown.compared_seeds for row in shown.compared)


def _tiles(shown: ReportView) -> list[tuple[str, str, str]]:
    """Return the numbers to read first: (name, value, explanation)."""
    if shown.comparison:
        return [
            (f"{row.method} − {shown.reference or 'reference'}, mean", f"{formats.points(row.difference)} points",
             formats.point_ends(row.difference_low, row.difference_high))
            for row in shown.compared if not row.client and row.difference is not None
        ]  # fmt: skip
    tiles = []
    gains = results.gains(shown)
    if gains:
        many = len(gains) > 1
        name = f"Federated − {'alone' if shown.has_alone else 'before'}" + (", mean" if many else "")
        interval = results.mean_gain(gains)
        said = [f"{formats.LEVEL} interval {formats.point_ends(*interval)}"] if interval else []
        gaps = [gap for gap, _ in gains]
        said += [f"by client {formats.point_ends(min(gaps), max(gaps))}"] if many else []
        tiles.append((name, f"{formats.points(sum(gaps) / len(gaps))} points", "; ".join(said)))
    rounds = [t for client in shown.clients for t in client.trained.values()]
    if rounds:
        traffic = [client.traffic for client in shown.clients]
        up, down, once = (
            sum(sizes) / len(traffic)
            for sizes in zip(*((*t.total, t.before[0]) for t in traffic), strict=True)
        )
        received = f"{formats.size(once)} of it before round 1; " if once else ""
        received += f"received {formats.size(down)}"
        name = "Sent in the run per client" + (", mean" if len(traffic) > 1 else "")
        tiles.append((name, formats.size(up), received))
        spent = sum(sum(t.seconds.values()) for t in rounds) + sum(
            a.seconds or 0 for a in shown.aggregates.values()
        )
        alone = sum(sum(t.seconds.values()) for c in shown.clients for t in c.trained_alone.values())
        below = f"and {formats.duration(alone)} for training alone" if alone else "all clients and the server"
        tiles.append(("Computing time", formats.duration(spent), below))
    failed = formats.plural(len(shown.failures), "failure")
    tiles.append(("Problems", failed, formats.plural(len(shown.warnings), "warning")))
    return tiles
