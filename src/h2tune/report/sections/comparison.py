"""Comparison of methods over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from h2tune.report import formats
from h2tune.report.charts import axes
from h2tune.report.charts.ranges import Range, ranges
from h2tune.report.charts.theme import CLEAR, UNCLEAR
from h2tune.report.sections.parts import Cell, Figure, LegendEntry, Section, Table
from h2tune.report.sections.setup import environment
from h2tune.report.view.comparison import ComparedView, shown_rows
from h2tune.report.view.model import ReportView

ALL = "mean over clients"
"""Name of a row or a chart that belongs to no single client."""


def section(view: ReportView) -> Section:
    """Return the table of a comparison and the charts of its differences."""
    against = f" to {view.reference}" if view.reference else ""
    text = [
        f"Every method ran with the same seeds. Differences{against} are paired by seed; above zero, the method of "
        f"the row is better. Lines are {formats.LEVEL} Student t intervals over seeds; an arrow marks an end that "
        "cannot be computed. Each chart has its own scale.",
        "The bootstrap interval is the percentile interval, which is too narrow with few seeds. p belongs to the "
        "paired t test. p (Holm) is corrected for all methods on the mean over clients, and for all methods and "
        "clients in the rows of single clients.",
        *view.remarks,
    ]
    legend = [LegendEntry("interval excludes zero", CLEAR), LegendEntry("interval includes zero", UNCLEAR)]
    figures = charts(shown_rows(view.compared), view.reference)
    tables = [table(view), *([headroom(view)] if view.recovered else [])]
    return Section("compare", "Comparison of methods", text, legend if figures else (), figures, tables)


def setup(view: ReportView) -> Section:
    """Return the settings of a comparison."""
    methods = dict.fromkeys(row.method for row in view.compared)
    rows: list[list[Cell | str]] = [
        [method, ", ".join(view.settings.get(method, ())) or "as in the federation file"]
        for method in methods
    ]
    facts = [f"split {view.split}", f"reference {view.reference}" if view.reference else ""]
    facts += [f"seeds {', '.join(view.seeds)}" if view.seeds else ""]
    text = [" · ".join(fact for fact in facts if fact)]
    tables = [Table("Settings of methods", ["method", "settings"], rows, (1,))]
    if view.members:
        tables.append(Table("Clients", ["client", "model", "task", "rank"], view.members, (1, 2)))
    if view.federation:
        common = [[key, value] for key, value in view.federation.items()]
        tables.append(
            Table("Settings of the federation file", ["key", "value"], common, words=(1,), folded=True)
        )
    return Section("setup", "What ran", text, tables=[*tables, *environment(view)])


def charts(rows: Sequence[ComparedView], reference: str) -> list[Figure]:
    """Return the paired differences with their intervals, one chart per client."""
    known = [row for row in rows if row.difference is not None]
    found = []
    for i, client in enumerate(dict.fromkeys(row.client for row in known)):
        own = [row for row in known if row.client == client]
        shown = [Range(r.method, _percent(r.difference) or 0, _percent(r.difference_low), _percent(r.difference_high),
                       CLEAR if _is_clear(r) else UNCLEAR, _note(r)) for r in own]  # fmt: skip
        ends = [v for r in shown for v in (r.mean, r.low, r.high) if v is not None]
        label = f"difference to {reference}, points" if reference else "difference, points"
        description = "; ".join(row.note for row in shown)
        title = f"Paired differences on {client or ALL}"
        svg = ranges(f"compare-{i}", title, description, shown, axes.linear(label, [0.0, *ends], ticks=4))
        found.append(Figure(client or ALL, svg))
    return found


def _percent(value: float | None) -> float | None:
    return None if value is None else value * 100


def _is_clear(row: ComparedView) -> bool:
    low, high = row.difference_low, row.difference_high
    return (low is not None and low > 0) or (high is not None and high < 0)


def _note(row: ComparedView) -> str:
    low, high = (
        formats.points(end) if end is not None else "unknown"
        for end in (row.difference_low, row.difference_high)
    )
    return f"{row.method}: {formats.points(row.difference)} points, {formats.LEVEL} interval {low} to {high}"


def table(view: ReportView) -> Table:
    """Return the rows of a comparison, differences first."""
    rows: list[list[Cell | str]] = []
    for row in shown_rows(view.compared):
        below = formats.percent_ends(row.low, row.high)
        gap = formats.point_ends(row.difference_low, row.difference_high)
        drawn = formats.point_ends(row.bootstrap_low, row.bootstrap_high) or formats.NONE
        rows.append(
            [Cell(row.method, row.client or ALL), Cell(formats.points(row.difference), gap),
             Cell(formats.percent(row.mean), below), formats.probability(row.p_holm), formats.size(row.bytes_up),
             formats.size(row.bytes_down), formats.duration(row.seconds), formats.count(row.seeds),
             formats.probability(row.p), drawn]
        )  # fmt: skip
    against = f"difference to {view.reference}, points" if view.reference else "difference, points"
    head = ["method and client", against, view.compared_measure, "p (Holm)", "sent", "received", "training time",
            "seeds", "p", "bootstrap interval of the difference"]  # fmt: skip
    return Table(f"Methods, mean over seeds with {formats.LEVEL} intervals below", head, rows)


def headroom(view: ReportView) -> Table:
    """Return how much of the headroom each method recovers, and how many clients it harms."""
    rows: list[list[Cell | str]] = []
    for row in view.recovered:
        rows.append(
            [row.method, Cell(formats.percent(row.share, 0), formats.percent_ends(row.share_low, row.share_high, 0)),
             Cell(formats.points(row.headroom), formats.point_ends(row.headroom_low, row.headroom_high)),
             f"{formats.count(row.harmed)} of {formats.count(row.clients)}"]
        )  # fmt: skip
    head = ["method", "share of the headroom recovered", "headroom (pooled − local), points",
            "clients more than a point below local"]  # fmt: skip
    return Table("Headroom, and the share that each method recovers", head, rows)
