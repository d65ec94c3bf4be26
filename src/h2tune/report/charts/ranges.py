"""Charts of means with intervals, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from h2tune.report.charts.axes import Channel
from h2tune.report.charts.draw import Spec, draw, framed, layer, mark, own, points
from h2tune.report.charts.theme import INK, Look

LEFT, WIDEST, LETTER = 124, 190, 6.2
"""Room for names on the left, the most that there can be, and about as much for a letter."""
ROW, LINE = 22, 13
"""Height of a row, and of each further line of its name."""


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
    parts = [part for row in rows for part in row.name.split("+")]
    left = min(WIDEST, max(LEFT, LETTER * max(map(len, parts), default=0) + 30))
    more = max((row.name.count("+") for row in rows), default=0)
    height = ROW + LINE * more
    split = "split(replace(datum.label, /[+]/g, '\\n+'), '\\n')"  # a line for each override of a method
    axis: Spec = {"title": None, "labelLimit": left - 22, "labelPadding": 8, "labelExpr": split}
    if more:  # the lines of a name have their middle at the row's
        lifted = [
            {"test": f"length(split(datum.label, '+')) == {count + 1}", "value": -LINE * count / 2}
            for count in range(1, more + 1)
        ]
        axis["labelOffset"] = {"condition": lifted, "value": 0}
    domain = {"domain": [row.name for row in rows]}
    y = {"field": "name", "type": "nominal", "scale": domain, "sort": None, "axis": axis}
    x = {"field": "x", **x, "axis": {**x["axis"], "grid": True}}
    layers = [zero, lines, points(marks)]
    return draw(key, title, description, framed(layers, height * len(rows), {"x": x, "y": y}, left, top=8))
