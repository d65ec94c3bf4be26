"""Heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from h2tune.report.charts import axes
from h2tune.report.charts.draw import WIDTH, Spec, draw, layer
from h2tune.report.charts.theme import INK, RAMP

GAP = 16


@dataclass(frozen=True)
class HeatMap:
    """One map: its caption and its values (rows, columns), row 0 at the top."""

    caption: str
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Cells:
    """What the rows or the columns of a map are.

    Args:
        label: What they count.
        low: Value at the start of the first.
        high: Value at the end of the last.
        names: Names of the rows, if they are not numbered.
    """

    label: str
    low: float
    high: float
    names: Sequence[str] = ()


def numbered(label: str, first: int, count: int) -> Cells:
    """Return rows or columns with the numbers `first`, `first` + 1, …; a tick is at the middle of a cell."""
    return Cells(label, first - 0.5, first + count - 0.5)


def heat_maps(
    key: str,
    title: str,
    description: str,
    maps: Sequence[HeatMap],
    rows: Cells,
    columns: Cells,
    *,
    high: float,
    height: float = 0,
) -> Markup:
    """Draw one or two heat maps of the same shape side by side; their colours go from 0 to `high`.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        maps: One or two.
        rows: What the rows are.
        columns: What the columns are.
        high: Value of the last colour.
        height: Height of the maps; 0 makes them square.
    """
    left = 92 if rows.names else 40
    width = (WIDTH - left - GAP - 8) / 2 if len(maps) == 2 or not height else WIDTH - left - 8
    scale = {"type": "quantize", "domain": [0, high or 1], "range": list(RAMP)}
    colours = {"field": "value", "type": "quantitative", "legend": None, "scale": scale}
    views = []
    for i, shown in enumerate(maps):
        cells = {"data": {"values": _cells(shown, rows, columns)}, "mark": {"type": "rect", "aria": False},
                 "encoding": {**_places(rows, columns, first=i == 0), "fill": colours}}  # fmt: skip
        caption = layer([{"text": shown.caption}], "text", {"fill": INK}, text={"field": "text"},
                        x={"value": width / 2}, y={"value": -10})  # fmt: skip
        size = {"width": width, "height": height or width, "view": {"fill": RAMP[0]}}
        views.append({**size, "layer": [cells, caption]})
    return draw(key, title, description, {"hconcat": views, "spacing": GAP, "bounds": "flush", "padding": 2})


def _places(rows: Cells, columns: Cells, *, first: bool) -> Spec:
    """Return the channels of places; the first map alone has what is written at the rows."""
    across = axes.count(columns.label, columns.low, columns.high, ticks=4)
    down = axes.count(rows.label, rows.low, rows.high, ticks=5, grid=False, titleX=-38)
    down["scale"] = {**down["scale"], "domain": [rows.high, rows.low]}
    if rows.names:
        down = {"type": "nominal", "scale": {"domain": rows.names}, "sort": None,
                "axis": {"title": None, "labelLimit": 74}}  # fmt: skip
    y = {"field": "y", **down, **({} if first else {"axis": None})}
    return {
        "x": {"field": "x", **across},
        "x2": {"field": "x2"},
        "y": y,
        **({} if rows.names else {"y2": {"field": "y2"}}),
    }


def _cells(shown: HeatMap, rows: Cells, columns: Cells) -> list[Spec]:
    """Return the cells of a map, without those of the background."""
    down, across = len(shown.values), len(shown.values[0])
    tall, wide = (rows.high - rows.low) / down, (columns.high - columns.low) / across
    return [
        {"x": columns.low + j * wide, "x2": columns.low + (j + 1) * wide, "value": value,
         "y": rows.names[i] if rows.names else rows.low + i * tall, "y2": rows.low + (i + 1) * tall}
        for i, row in enumerate(shown.values) for j, value in enumerate(row) if value > 0
    ]  # fmt: skip
