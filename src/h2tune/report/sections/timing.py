"""Where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from h2tune.report import formats
from h2tune.report.charts import axes
from h2tune.report.charts.bars import Stack, bars
from h2tune.report.charts.theme import Look, activity_colour
from h2tune.report.sections.charted import charted
from h2tune.report.sections.parts import Cell, Figure, LegendEntry, Section, Table
from h2tune.report.view.model import ClientView, ReportView

ACTIVITIES = ("load", "train", "evaluate", "save", "aggregate")
"""What takes time in a round, in order."""


def section(view: ReportView) -> Section:
    """Return the seconds of each round: of the whole federation, and of each client."""
    clients = [c for c in view.clients if any(t.seconds for t in c.trained.values())]
    if not clients:
        return Section("time", "Time by round", ["No finished training has been logged yet."])
    logged = {name for c in clients for t in c.trained.values() for name in t.seconds}
    names = [*ACTIVITIES, *sorted(logged - set(ACTIVITIES))]
    some, said = charted(clients)
    groups = [("all clients and the server", clients), *((c.name, [c]) for c in some if len(clients) > 1)]
    figures = [_figure(view, i, heading, some, names) for i, (heading, some) in enumerate(groups)]
    shown = [name for name in names if name in logged | {"aggregate"}]
    legend = [LegendEntry(name, Look(activity_colour(names.index(name))), bar=True) for name in shown]
    text = [
        "Time is measured on the machine that does the work. The times of clients add up to the duration of a run only "
        "where clients take turns on one machine.",
        *said,
    ]
    return Section("time", "Time by round", text, legend, figures, [_table(view)])


def _figure(
    view: ReportView, number: int, heading: str, clients: Sequence[ClientView], names: Sequence[str]
) -> Figure:
    rounds = range(view.rounds)
    stacks = []
    for i, name in enumerate(names):
        spent = [
            sum(max(c.trained[r].seconds.get(name, 0), 0) for c in clients if r in c.trained) for r in rounds
        ]
        if number == 0 and name == "aggregate":
            server = [view.aggregates[r].seconds or 0.0 if r in view.aggregates else 0.0 for r in rounds]
            spent = [max(a + b, 0) for a, b in zip(spent, server, strict=True)]
        if any(spent):
            stacks.append(Stack(name, activity_colour(i), spent))
    note = ", ".join(f"{stack.name} {formats.duration(sum(stack.values))}" for stack in stacks)
    stacks = stacks or [Stack("", activity_colour(0), [0.0 for _ in rounds])]
    high = max((sum(column) for column in zip(*(s.values for s in stacks), strict=True)), default=0)
    unit, word = (1, "s") if high < 120 else (60, "min") if high < 7200 else (3600, "h")
    y = axes.linear(f"time, {word}", [0, high / unit or 1], ticks=4)
    title = f"Time of {heading} by round"
    return Figure(
        heading, bars(f"seconds-{number}", title, note, stacks, y, unit=unit, form=formats.duration), note
    )


def _table(view: ReportView) -> Table:
    """Return the seconds of each client in all rounds, by activity."""
    own = ACTIVITIES[:-1]
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        spent = [sum(t.seconds.get(name, 0) for t in client.trained.values()) for name in own]
        if client.trained:
            rows.append([client.name, *map(formats.duration, [*spent, sum(spent)])])
    if view.aggregates:
        server = sum(a.seconds or 0 for a in view.aggregates.values())
        rows.append(["server", *[formats.NONE] * len(own), formats.duration(server)])
    return Table("Time by client", ["client", *own, "total"], rows, folded=True)
