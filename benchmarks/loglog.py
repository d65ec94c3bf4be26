"""A log-log chart as SVG, for benchmarks that fit exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from h2tune.report import svg

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 360.0, 70.0, 20.0, 20.0, 50.0
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
    dashes: str = "none"
    marks: bool = False


def draw(
    points: Sequence[int], lines: Sequence[Line], title: str, description: str, x_title: str, y_title: str
) -> str:
    """Return the chart of some lines over the same points.

    Args:
        points: Where the values are.
        lines: From the one behind to the one in front.
        title: What the chart shows.
        description: Text alternative of the chart.
        x_title: What the points are.
        y_title: What the values are.
    """
    values = [value for line in lines for value in line.values]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    first, last = math.log10(points[0]), math.log10(points[-1])

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - math.log10(value)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    root = svg.canvas("chart", title, description, HEIGHT, WIDTH)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("font-family", "sans-serif")
    root.set("font-size", "12")
    svg.add(root, "rect", width=WIDTH, height=HEIGHT, fill="#fff")
    for t in points:
        svg.add(root, "line", x1=x(t), x2=x(t), y1=TOP, y2=HEIGHT - BOTTOM, stroke=GRID)
        svg.add(root, "text", f"{t:,}", x=x(t), y=HEIGHT - BOTTOM + 18, text_anchor="middle", fill=INK)
    for value in _ticks(low, high):
        svg.add(root, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), stroke=GRID)
        svg.add(root, "text", f"{value:g}", x=LEFT - 8, y=y(value) + 4, text_anchor="end", fill=INK)
    for line in lines:
        where = [(x(t), y(v)) for t, v in zip(points, line.values, strict=True)]
        path = " ".join(f"{svg.n(a)},{svg.n(b)}" for a, b in where)
        svg.add(root, "polyline", points=path, fill="none", stroke=line.colour, stroke_width=line.width,
                stroke_dasharray=line.dashes)  # fmt: skip
        for a, b in where if line.marks else ():
            svg.add(root, "circle", cx=a, cy=b, r=4.0, fill=line.colour)
    labelled = [line for line in reversed(lines) if line.label]
    _legend(root, labelled, rising=any(line.values[-1] > line.values[0] for line in lines))
    svg.add(
        root, "text", x_title, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 12, text_anchor="middle", fill=INK
    )
    svg.add(root, "text", y_title, x=16.0, y=HEIGHT / 2, text_anchor="middle", fill=INK,
            transform=f"rotate(-90 16 {svg.n(HEIGHT / 2)})")  # fmt: skip
    return svg.write(root) + "\n"


def _legend(root: svg.Element, lines: Sequence[Line], *, rising: bool) -> None:
    """Name the lines where there is room: at the left if they rise, else at the right."""
    left = LEFT + 14 if rising else WIDTH - 222
    for i, line in enumerate(lines):
        where = TOP + 16 + 18 * i
        svg.add(root, "rect", x=left, y=where - 9, width=14.0, height=10.0, fill=line.colour)
        svg.add(root, "text", line.label, x=left + 20, y=where, fill=INK)


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= math.log10(m * 10.0**d) <= high]
