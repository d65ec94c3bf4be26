"""Charts of means with intervals, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from h2tune.report.charts.axes import Channel
from h2tune.report.charts.draw import Spec, draw, framed, layer, mark, own, points
from h2tune.report.charts.theme import INK, Look

LEFT, ROW = 124, 22


@dataclass(frozen=True)
class Range:
    """A row: a mean and its interval; an end of None is unknown and drawn as an arrow at the edge.

    Args:
        name: Name of the row.
        mean: The mean.
        low: Lower end of the interval.
        high: Upper end.
        look: How it is drawn.
        note: Text that is shown when the mark is pointed at.
    """

    name: str
    mean: float
    low: float | None
    high: float | None
    look: Look
    note: str


def ranges(key: str, title: str, description: str, rows: Sequence[Range], x: Channel) -> Markup:
    """Draw means with intervals about a vertical line at zero."""
    spans: list[Spec] = []
    marks: list[Spec] = []
    for row in rows:
        low, high = (-1e99 if row.low is None else row.low), (1e99 if row.high is None else row.high)
        spans.append({"name": row.name, "x": low, "x2": high, "colour": row.look.colour})
        for known, end, arrow in ((row.low, low, "triangle-left"), (row.high, high, "triangle-right")):
            look = replace(row.look, shape=arrow if known is None else "M0,-1V1", hollow=known is not None)
            marks.append(mark(look, name=row.name, x=end))
        marks.append(mark(row.look, row.note, name=row.name, x=row.mean))
    zero = layer([{"x": 0}], "rule", {"stroke": INK}, y={"value": 0}, y2={"value": "height"})
    lines = layer(spans, "rule", {"strokeWidth": 1.8}, x2={"field": "x2"}, stroke=own("colour"))
    axis = {"title": None, "labelLimit": LEFT - 22, "labelPadding": 8}
    domain = {"domain": [row.name for row in rows]}
    y = {"field": "name", "type": "nominal", "scale": domain, "sort": None, "axis": axis}
    x = {"field": "x", **x, "axis": {**x["axis"], "grid": True}}
    layers = [zero, lines, points(marks)]
    return draw(key, title, description, framed(layers, ROW * len(rows), {"x": x, "y": y}, LEFT, top=8))
