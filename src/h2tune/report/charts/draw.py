"""A Vega-Lite specification → an SVG element for the page.

Vega-Lite (https://vega.github.io/vega-lite) draws; vl-convert runs it without a browser and without a network. Its
output is reduced to elements and attributes that draw: the page's content security policy admits no inline styles, and
the chart gets one text alternative as a whole.

Text from events is only ever passed as data values or as titles, never inside a Vega expression.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from h2tune.report.charts.theme import FAINT, GRID, INK, SHAPES, SOFT, Look

Spec = dict[str, Any]
VERSION = "6.4"
"""Version of Vega-Lite; vl-convert brings several."""
WIDTH = 320
"""Width of a chart in its own units; about one screen pixel each, so that text is legible at any width."""
CONFIG: Spec = {
    "background": None,
    "font": "Liberation Sans",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelColor": SOFT,
        "titleColor": INK, "gridColor": GRID, "domainColor": FAINT, "tickColor": FAINT, "tickSize": 4,
        "labelOverlap": False, "labelBound": False, "labelFlush": False, "labelLimit": 0,
    },
    "axisX": {"grid": False},
    "axisY": {
        "domain": False, "ticks": False, "titleAngle": 0, "titleAlign": "left", "titleX": -42, "titleY": -9,
        "titleBaseline": "bottom", "labelPadding": 6,
    },
    "text": {"fontSize": 11, "fill": SOFT},
}  # fmt: skip
DRAWING = frozenset(
    ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "fill", "stroke", "stroke-width",
     "stroke-dasharray", "fill-opacity", "stroke-opacity", "opacity", "text-anchor", "dy")
)  # fmt: skip
"""Attributes that are kept."""
DEFAULTS = frozenset(
    (("opacity", "1"), ("stroke-width", "1"), ("x2", "0"), ("y2", "0"), ("text-anchor", "start"),
     ("transform", "translate(0,0)"))
)  # fmt: skip
"""Attributes that change nothing."""


def draw(key: str, title: str, description: str, spec: Spec) -> Markup:
    """Draw a chart.

    Args:
        key: A word that no other chart of the page has; the ids of title and description begin with it.
        title: What the chart shows.
        description: What can be seen in it, in words and numbers.
        spec: The chart in Vega-Lite.

    Returns:
        An SVG element that scales with its place, with title and description for readers who do not see it.
    """
    written = vl_convert.vegalite_to_svg({"config": CONFIG, **spec}, vl_version=VERSION, allowed_base_urls=[])
    drawn = ElementTree.fromstring(re.sub(r' xmlns(:xlink)?="[^"]*"', "", written, count=2))  # noqa: S314 - not foreign
    names = {"role": "img", "aria-labelledby": f"{key}-title {key}-desc", "class": "chart"}
    root = ElementTree.Element("svg", {"viewBox": drawn.get("viewBox", ""), **names})
    for tag, content in (("title", title), ("desc", description)):
        ElementTree.SubElement(root, tag, {"id": f"{key}-{tag}"}).text = content
    _copy(drawn, root)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - an XML tree wrote it, text is escaped


def framed(layers: list[Spec], height: float, encoding: Spec, left: float = 44, top: float = 24) -> Spec:
    """Return a specification of layers in one frame, whose place does not depend on the length of labels.

    Args:
        layers: The layers, drawn in order.
        height: Height of the frame.
        encoding: Channels of all layers, with the axes.
        left: Room for labels to the left of the frame.
        top: Room for the label above it.
    """
    padding = {"left": left, "right": 12, "top": top, "bottom": 38}
    size = {"width": WIDTH - left - 12, "height": height, "padding": padding, "autosize": {"type": "none"}}
    frame = {"data": {"values": []}, "mark": "point"}  # brings the axes even where there is nothing to draw
    return {**size, "encoding": encoding, "layer": [frame, *layers]}


def layer(rows: list[Spec], kind: str, style: Spec, **encoding: Any) -> Spec:
    """Return a layer of marks; a row's `note`, if there is one, is shown when its mark is pointed at."""
    noted = any(row.get("note") for row in rows)
    if noted:
        encoding["description"] = {"field": "note"}
    return {"data": {"values": rows}, "mark": {"type": kind, "aria": noted, **style}, "encoding": encoding}


def mark(look: Look, note: str = "", **place: Any) -> Spec:
    """Return a row of `points`: where it is, and how it looks."""
    shape = SHAPES.get(look.shape, look.shape)
    colours = (None, look.colour) if look.hollow else (look.colour, None)
    return {**place, "note": note, "shape": shape, "fill": colours[0], "stroke": colours[1]}


def points(rows: list[Spec]) -> Spec:
    """Return a layer of marks, each with its own shape and colour."""
    style = {"size": 34, "opacity": 1, "strokeWidth": 1.6}
    return layer(rows, "point", style, shape=own("shape"), fill=own("fill"), stroke=own("stroke"))


def own(field: str) -> Spec:
    """Return the channel of a property that every row has itself, such as a colour."""
    return {"field": field, "type": "nominal", "scale": None}


def _copy(source: ElementTree.Element, target: ElementTree.Element) -> None:
    """Append the drawing children of `source`: descriptions become titles, areas of one colour become one path."""
    alike: dict[str, ElementTree.Element] = {}
    for child in source:
        short = ((k, _short(v)) for k, v in child.attrib.items() if k in DRAWING)
        kept = dict(item for item in short if item not in DEFAULTS)
        note = child.get("aria-label", "")
        if child.tag == "g":
            group = ElementTree.Element("g", kept)
            _copy(child, group)
            target.extend([group] if group.attrib and len(group) else list(group))
        elif child.tag == "path" and kept.keys() == {"d", "fill"} and not note:
            same = alike.get(kept["fill"])
            if same is None:
                alike[kept["fill"]] = ElementTree.SubElement(target, "path", kept)
            else:
                same.set("d", same.get("d", "") + kept["d"])
        elif child.tag == "text" or (
            child.tag in ("path", "line", "rect") and kept.keys() & {"fill", "stroke"}
        ):
            copied = ElementTree.SubElement(target, child.tag, kept)
            copied.text = child.text if child.tag == "text" else None
            for line in child.findall("tspan"):
                place = {k: v for k, v in line.attrib.items() if k in DRAWING}
                ElementTree.SubElement(copied, "tspan", place).text = line.text
            if note:
                ElementTree.SubElement(copied, "title").text = note


def _short(value: str) -> str:
    """Return an attribute with at most one decimal in each number."""
    return re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), value)
