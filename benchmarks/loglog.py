"""A log-log chart as SVG, for benchmarks that fit exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

VERSION = "6.4"
"""Version of Vega-Lite; vl-convert brings several."""
WIDTH, HEIGHT = 560, 360
INK, GRID = "#333", "#e5e5e5"
COLOURS = ("#1f5f9e", "#4b8b3b", "#8a4fa0")
GUIDE = "#b5532a"


@dataclass(frozen=True)
class Line:
    """One line of a chart; without a label it is not in the legend."""

    values: Sequence[float]
    colour: str
    label: str = ""
    width: float = 2.5
    dashes: str = ""
    marks: bool = False


def draw(
    points: Sequence[int], lines: Sequence[Line], title: str, description: str, x_title: str, y_title: str
) -> str:
    """Return a chart of lines over the same points, as SVG.

    Args:
        points: Values on the x axis.
        lines: The lines, drawn in order.
        title: Title of the chart.
        description: Text alternative of the chart.
        x_title: Title of the x axis.
        y_title: Title of the y axis.
    """
    labelled = [line for line in lines if line.label]
    scale = {"type": "log", "nice": False, "padding": 8}
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": scale,
        "axis": {"values": list(points)},
    }
    y = {"field": "y", "type": "quantitative", "title": y_title, "scale": scale, "axis": {"tickCount": 8}}
    colour = {
        "field": "label", "type": "nominal", "title": None, "legend": {"orient": "top", "columns": 2, "labelLimit": 0},
        "scale": {"domain": [line.label for line in labelled], "range": [line.colour for line in labelled]},
    }  # fmt: skip
    axis = {"gridColor": GRID, "domainColor": INK, "labelColor": INK, "titleColor": INK, "format": ",g"}
    spec = {
        "width": WIDTH, "height": HEIGHT, "background": "#fff", "title": title, "description": description,
        "config": {"font": "sans-serif", "axis": axis, "view": {"stroke": None}},
        "encoding": {"x": x, "y": y}, "layer": [_layer(points, line, colour) for line in lines],
    }  # fmt: skip
    return vl_convert.vegalite_to_svg(spec, vl_version=VERSION, allowed_base_urls=[]) + "\n"


def _layer(points: Sequence[int], line: Line, colour: dict[str, Any]) -> dict[str, Any]:
    """Return the Vega-Lite layer of a line; its label gives it its colour in the legend."""
    rows = [
        {"x": x, "y": float(value), "label": line.label} for x, value in zip(points, line.values, strict=True)
    ]
    mark: dict[str, Any] = {"type": "line", "strokeWidth": line.width, "point": line.marks}
    if line.dashes:
        mark["strokeDash"] = [int(length) for length in line.dashes.split()]
    if not line.label:
        return {"data": {"values": rows}, "mark": {**mark, "color": line.colour}}
    return {"data": {"values": rows}, "mark": mark, "encoding": {"color": colour}}
