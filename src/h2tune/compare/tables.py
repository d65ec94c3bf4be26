"""A comparison as Markdown, CSV, an event, and on the terminal."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from h2tune.compare.rows import Row
from h2tune.report import formats

if TYPE_CHECKING:
    from rich.table import Table

HEAD = (
    "method",
    "seeds",
    "accuracy, %",
    "difference, points",
    "bootstrap",
    "p",
    "p (Holm)",
    "sent",
    "received",
    "time",
)


def markdown(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: the mean over clients, then client by client, then what there is to know."""
    parts = [f"# Comparison: {facts['name']}\n", *(f"{line}\n" for line in explained(facts))]
    for client in dict.fromkeys(row.client for row in rows):
        parts.append(f"## {client or 'Mean over clients'}\n")
        table = [HEAD, ("---",) * len(HEAD), *(cells(row) for row in rows if row.client == client)]
        parts.append("\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in table) + "\n")
    parts += [f"* {_escaped(line)}" for line in remarks(facts)]
    return "\n".join(parts).rstrip() + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, every number in full; what is unknown is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_dict() for row in rows)
    return stream.getvalue()


def event_of(rows: Sequence[Row], facts: Mapping[str, Any], version: str, began: float) -> str:
    """Return the line of `events.jsonl`; what is unknown is null."""
    event = {
        "event": "compared",
        **facts,
        "version": version,
        "remarks": remarks(facts),
        "rows": [row.as_dict() for row in rows],
    }
    event |= {"seconds": round(time.time() - began, 3), "time": round(time.time(), 3)}
    return json.dumps(event, allow_nan=False) + "\n"


def terminal_table(rows: Sequence[Row], facts: Mapping[str, Any]) -> Table:
    """Return the table for the terminal."""
    from rich.table import Table

    shown = Table("client", *HEAD, title=f"{facts['name']}: difference to {facts['reference']}")
    for client in dict.fromkeys(row.client for row in rows):
        for row in rows:
            if row.client == client:
                shown.add_row(client or "mean", *cells(row))
        shown.add_section()
    return shown


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as text."""
    spread = (
        f" ({row.low * 100:.1f} to {row.high * 100:.1f})"
        if row.low is not None and row.high is not None
        else ""
    )
    return (
        row.method,
        str(row.seeds),
        f"{row.mean * 100:.1f}{spread}",
        formats.points(row.difference) + _between(row.difference_low, row.difference_high),
        _between(row.bootstrap_low, row.bootstrap_high).strip(" ()") or formats.NONE,
        formats.probability(row.p),
        formats.probability(row.p_holm),
        formats.size(row.bytes_up),
        formats.size(row.bytes_down),
        formats.duration(row.seconds),
    )


def explained(facts: Mapping[str, Any]) -> list[str]:
    """Return how to read the table."""
    seeds = facts["seeds"]
    first = (
        f"Accuracy on the {facts['split']} split after the last round; seeds {', '.join(map(str, seeds))}, the same "
        f"for every method. Differences are to {facts['reference']}, paired by seed. Bytes and training time are of "
        "one client and the whole run, means over seeds."
    )
    if len(seeds) == 1:
        return [first, "One seed: there is no interval and no test."]
    second = (
        f"In brackets 95 % Student t intervals over {len(seeds)} seeds. The bootstrap interval of the difference is "
        "the percentile one over seeds, too narrow with few of them. p is of the paired t test; p (Holm) is corrected "
        "for all methods on the mean over clients, and for all methods and clients in the tables by client."
    )
    return [first, second]


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """Return the settings of methods, how clients take part, and what failed; a line each."""
    lines = [f"{method}: {', '.join(changes)}" for method, changes in facts["settings"].items()]
    together: dict[tuple[str, str], list[str]] = {}
    for note in facts["notes"]:
        together.setdefault((note["method"], note["note"]), []).append(note["client"])
    lines += [f"{method}, {', '.join(clients)}: {note}" for (method, note), clients in together.items()]
    failed: dict[tuple[str, str], list[str]] = {}
    for problem in facts["problems"]:
        failed.setdefault((problem["method"], problem["reason"]), []).append(str(problem["seed"]))
    lines += [f"{method}, seed {', '.join(which)}: {reason}" for (method, reason), which in failed.items()]
    return lines


def _between(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f" ({formats.points(low)} to {formats.points(high)})"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
