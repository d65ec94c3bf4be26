"""Line charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from h2tune.report.charts.axes import Channel
from h2tune.report.charts.draw import WIDTH, Spec, draw, framed, layer, mark, own, points
from h2tune.report.charts.theme import Look

MARKED = 50
"""With a line of more points than this, a chart has no marks."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: What it shows.
        look: How it is drawn.
        points: (x, y); a y of None is a gap.
        spans: By x, (low, high) of an interval that is drawn as a bar behind the mark.
        notes: By x, the text that is shown when the mark is pointed at.
    """

    name: str
    look: Look
    points: Sequence[tuple[float, float | None]]
    spans: dict[float, tuple[float, float]] = field(default_factory=dict)
    notes: dict[float, str] = field(default_factory=dict)


def lines(
    key: str,
    title: str,
    description: str,
    series: Sequence[Series],
    x: Channel,
    y: Channel,
    *,
    rules: Sequence[tuple[float, Look]] = (),
) -> Markup:
    """Draw lines with marks.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        series: The lines, drawn in order.
        x: Horizontal scale.
        y: Vertical scale.
        rules: (y, look) of horizontal lines from side to side.
    """
    rows = [
        {"x": x, "y": y, "series": i, "colour": line.look.colour, "dash": list(line.look.dash)}
        for i, line in enumerate(series) if line.look.line for x, y in line.points
    ]  # fmt: skip
    spans = [
        {"x": x, "y": low, "y2": high, "colour": line.look.colour}
        for line in series for x, (low, high) in line.spans.items()
    ]  # fmt: skip
    across = {"x": {"value": 0}, "x2": {"value": WIDTH - 56}}
    layers = [
        layer([{"y": y}], "rule", {"stroke": o.colour, "strokeDash": list(o.dash)}, **across)
        for y, o in rules
    ]
    if spans:
        style = {"strokeWidth": min(5, 180 / len(spans)), "opacity": 0.22}
        layers.append(layer(spans, "rule", style, y2={"field": "y2"}, stroke=own("colour")))
    curve: Spec = {"strokeWidth": 1.8, "strokeJoin": "round", "invalid": "break-paths-filter-domains"}
    by = {"detail": {"field": "series"}, "stroke": own("colour"), "strokeDash": own("dash")}
    layers.append(layer(rows, "line", curve, **by))
    every = max((len(line.points) for line in series), default=0) <= MARKED
    marked = [mark for line in series for mark in _marks(line, every)]
    layers += [points(marked)] if marked else []
    return draw(
        key, title, description, framed(layers, 142, {"x": {"field": "x", **x}, "y": {"field": "y", **y}})
    )


def _marks(line: Series, every: bool) -> list[Spec]:
    """Return the marks of all points of a line, or only of points without a neighbour, which no line shows."""
    gaps = [True, *(y is None for _, y in line.points), True]
    return [
        mark(line.look, line.notes.get(x, ""), x=x, y=y)
        for i, (x, y) in enumerate(line.points)
        if y is not None and (every or (gaps[i] and gaps[i + 2]))
    ]
