"""A comparison as Markdown, CSV, an event, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from h2tune.compare.rows import ALL, Row
from h2tune.errors import H2TuneError, nearest
from h2tune.report import formats
from h2tune.report.view.comparison import shown_rows

if TYPE_CHECKING:
    from rich.table import Table

FORMS = ("table", "latex")
"""What `h2tune compare` prints."""
HEAD = (
    "method",
    "seeds",
    "{measure}, %",
    "difference, points",
    "bootstrap",
    "p",
    "p (Holm)",
    "sent",
    "received",
    "time",
)
HEADROOM = ("method", "share recovered", "95 % interval", "clients more than a point below local")
"""Columns of the table of what methods recover of the headroom."""


def markdown(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: the mean over clients, then each client, then remarks."""
    rows = shown_rows(rows)
    head = [name.format(measure=facts["measure"]) for name in HEAD]
    parts = [f"# Comparison: {facts['name']}\n", *(f"{line}\n" for line in explained(rows, facts))]
    for client in dict.fromkeys(row.client for row in rows):
        parts.append(f"## {client or 'Mean over clients'}\n")
        parts.append(_markdown_table(head, [cells(row) for row in rows if row.client == client]))
    if facts.get("recovered"):
        parts.append(f"## {headroom_title(facts)}\n")
        parts.append(_markdown_table(HEADROOM, headroom_cells(facts)))
    parts += [f"* {_escaped(line)}" for line in remarks(facts)]
    return "\n".join(parts).rstrip() + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, with unrounded numbers; unknown values are empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_dict() for row in rows)
    return stream.getvalue()


def event_of(rows: Sequence[Row], facts: Mapping[str, Any], version: str, began: float) -> str:
    """Return the line of `events.jsonl`; unknown values are null."""
    event = {
        "event": "compared",
        **facts,
        "version": version,
        "remarks": remarks(facts),
        "rows": [row.as_dict() for row in rows],
    }
    event |= {"seconds": round(time.time() - began, 3), "time": round(time.time(), 3)}
    return json.dumps(event, allow_nan=False) + "\n"


def check_form(form: str) -> None:
    """Refuse an unknown form of the table that is printed.

    Raises:
        H2TuneError: Names the known ones.
    """
    if form not in FORMS:
        raise H2TuneError(
            f"no format '{form}'{nearest(form, FORMS)}", where="--format", remedy=f"Use {' or '.join(FORMS)}"
        )


def terminal_table(rows: Sequence[Row], facts: Mapping[str, Any]) -> Table:
    """Return a table for 80 columns: method, accuracy and difference, client by client."""
    from rich.table import Table

    shown, rows = Table(title=str(facts["name"])), shown_rows(rows)
    shown.add_column("method", overflow="fold")
    shown.add_column(f"{facts['measure']}, %", justify="right", no_wrap=True)
    shown.add_column(f"difference to {facts['reference']}, points", justify="right", overflow="fold")
    for client in dict.fromkeys(row.client for row in rows):
        shown.add_row(client or "mean over clients", "", "")
        for row in rows:
            if row.client == client:
                shown.add_row(f"  {row.method}", accuracy(row), difference(row))
        shown.add_section()
    return shown


def headroom_table(facts: Mapping[str, Any]) -> Table | None:
    """Return a table for the terminal of what each method recovers of the headroom; None if that is not known."""
    from rich.table import Table

    if not facts.get("recovered"):
        return None
    shown = Table(title=headroom_title(facts))
    for name in HEADROOM:
        shown.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
    for row in headroom_cells(facts):
        shown.add_row(*row)
    return shown


def accuracy(row: Row) -> str:
    """Return the mean score in per cent with its interval."""
    ends = formats.percent_ends(row.low, row.high, digits=1)
    return formats.bare_percent(row.mean) + (f" ({ends})" if ends else "")


def difference(row: Row) -> str:
    """Return the mean difference to the reference in points with its interval."""
    return formats.points(row.difference) + _between(row.difference_low, row.difference_high)


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row as text."""
    return (
        row.method,
        str(row.seeds),
        accuracy(row),
        difference(row),
        formats.point_ends(row.bootstrap_low, row.bootstrap_high) or formats.NONE,
        formats.probability(row.p),
        formats.probability(row.p_holm),
        formats.size(row.bytes_up),
        formats.size(row.bytes_down),
        formats.duration(row.seconds),
    )


def explained(rows: Sequence[Row], facts: Mapping[str, Any]) -> list[str]:
    """Return an explanation of the table, one paragraph per line."""
    seeds = facts["seeds"]
    fewer = [f"{row.method} {row.seeds}" for row in rows if row.client == ALL and row.seeds < len(seeds)]
    whose = f", fewer of {', '.join(fewer)}" if fewer else " for every method"
    first = (
        f"{formats.capital(facts['measure'])} on the {facts['split']} split after the last round; seeds "
        f"{', '.join(map(str, seeds))}{whose}. Differences are "
        f"relative to {facts['reference']}, paired by seed. Bytes and training time are per client and run, means over "
        "seeds."
    )
    if len(seeds) == 1:
        return [first, "One seed: no interval and no test."]
    second = (
        "In brackets: 95 % Student t intervals over seeds. The bootstrap interval of the difference is the percentile "
        "interval over seeds, too narrow with few seeds. p is that of the paired t test; p (Holm) is corrected for all "
        "methods on the mean over clients, and for all methods and clients in the other tables."
    )
    return [first, second]


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """Return the overrides of methods, notes on clients, and failures, one per line."""
    lines = [
        f"{method}: {', '.join(changes)}"
        for method, changes in facts["settings"].items()
        if not method.endswith("+".join(changes))  # its label does not say it
    ]
    noted: dict[tuple[str, str], list[str]] = {}
    for note in facts["notes"]:
        noted.setdefault((note["method"], note["note"]), []).append(note["client"])
    lines += [f"{method}, {', '.join(clients)}: {note}" for (method, note), clients in noted.items()]
    failed: dict[tuple[str, str], list[str]] = {}
    for problem in facts["problems"]:
        failed.setdefault((problem["method"], problem["reason"]), []).append(str(problem["seed"]))
    lines += [f"{method}, seed {', '.join(seeds)}: {reason}" for (method, reason), seeds in failed.items()]
    return lines


def headroom_cells(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return for each method the cells of HEADROOM as text; [] without local and pooled training."""
    return [
        (
            entry["method"],
            formats.percent(entry["share"], 0),
            formats.percent_ends(entry["share_low"], entry["share_high"], digits=0) or formats.NONE,
            f"{entry['harmed']} of {entry['clients']}",
        )
        for entry in facts.get("recovered", ())
    ]


def headroom_title(facts: Mapping[str, Any]) -> str:
    """Return a title of the table of HEADROOM, which says how large the headroom is."""
    entry = facts["recovered"][0]
    room = formats.points(entry["headroom"]) + _between(entry["headroom_low"], entry["headroom_high"])
    return f"Headroom (pooled − local): {room} points"


def _between(low: float | None, high: float | None) -> str:
    ends = formats.point_ends(low, high)
    return f" ({ends})" if ends else ""


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
