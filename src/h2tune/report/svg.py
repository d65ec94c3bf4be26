"""Pieces of charts: elements, axes, scales. Pure; colours and sizes of text are the style sheet's.

Charts are built as XML trees, so that text from events is always escaped and the result well-formed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from h2tune.report import formats

Element = ElementTree.Element
WIDTH = 320
"""Width of every chart in its own units; about one screen pixel each, so that text is legible at any width."""
MARKS = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",  # circle
    "m-2.7-2.7h5.4v5.4h-5.4z",  # square
    "m0-3.9l3.9 3.9l-3.9 3.9l-3.9-3.9z",  # diamond
    "m0-3.6l3.6 6.5h-7.2z",  # triangle
    "m0 3.6l3.6-6.5h-7.2z",  # triangle, point down
    "m-4-1.2h2.8v-2.8h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8z",  # plus
    "m-5-3.2l1.8-1.8l3.2 3.2l3.2-3.2l1.8 1.8l-3.2 3.2l3.2 3.2l-1.8 1.8l-3.2-3.2l-3.2 3.2l-1.8-1.8l3.2-3.2z",  # cross
)
"""Outlines of marks about the point where a path is: series differ by form as well as by colour."""
CROSS = 6
"""The mark of what failed."""


def n(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    written = f"{value:.1f}".removesuffix(".0")
    return "0" if written == "-0" else written


def add(parent: Element, tag: str, content: str = "", **attributes: str | float) -> Element:
    """Append an element; `class_` and `text_anchor` become class and text-anchor, numbers become coordinates."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    values = {name: value if isinstance(value, str) else n(value) for name, value in names.items()}
    child = ElementTree.SubElement(parent, tag, values)
    child.text = content or None
    return child


def canvas(key: str, title: str, description: str, height: float, width: float = WIDTH) -> Element:
    """Return an empty chart that scales with its place, with a title and a description for those who do not see it.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it, in words and numbers.
        height: In the chart's units.
        width: In the chart's units.
    """
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {n(width)} {n(height)}",
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-desc",
            "class": "chart",
        },
    )
    add(root, "title", title, id=f"{key}-title")
    add(root, "desc", description, id=f"{key}-desc")
    return root


def write(root: Element) -> str:
    """Return a chart as text."""
    return ElementTree.tostring(root, encoding="unicode")


@dataclass(frozen=True)
class Axis:
    """A scale and its ticks.

    Args:
        label: Name and unit.
        low: Value at the start.
        high: Value at the end.
        ticks: (value, text) of each tick.
        log: Whether the scale is logarithmic; values at or below zero then lie at the start.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float, start: float, end: float) -> float:
        """Return where between `start` and `end` a value lies; a value outside the axis lies at its edge."""
        low, high = self.low, self.high
        if self.log:
            low, high = math.log10(low), math.log10(high)
            value = math.log10(value) if value > 0 else low
        share = (value - low) / (high - low) if high > low else 0.5
        return start + min(max(share, 0.0), 1.0) * (end - start)


def linear_axis(
    label: str,
    values: Iterable[float],
    *,
    form: Callable[[float], str] | None = None,
    count: int = 5,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """Return an axis over `values` whose ends and ticks are round numbers.

    Args:
        label: Name and unit.
        values: What must lie on it; 0 to 1 if there are none.
        form: Writes a tick; by default with as many decimals as the ticks need.
        count: About how many intervals.
        bounds: The axis does not reach beyond them.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    step = _step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [i * step for i in range(first, last + 1) if bounds[0] - 1e-9 <= i * step <= bounds[1] + 1e-9]
    write_tick = form or functools.partial(formats.fixed, digits=max(0, -math.floor(math.log10(step) + 1e-9)))
    return Axis(label, ticks[0], ticks[-1], tuple((tick, write_tick(tick)) for tick in ticks))


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """Return a logarithmic axis from and to whole decades over the positive `values`; 0.1 to 1 if there are none."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [0.1, 1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    high += high == low
    every = math.ceil((high - low) / 6)
    ticks = [10.0**power for power in range(low, high + 1, every)]
    if high - low == 1:
        ticks = [factor * 10.0**low for factor in (1, 2, 5, 10)]
    return Axis(label, 10.0**low, 10.0**high, tuple((t, formats.short(t)) for t in ticks), log=True)


def count_axis(label: str, low: int, high: int, room: int = 9, shift: int = 0) -> Axis:
    """Return an axis of whole numbers, such as rounds or slots.

    Args:
        label: What is counted.
        low: First value.
        high: Last value.
        room: About how many ticks there is room for.
        shift: Added to a value to write it.
    """
    every = max(1, round(_step(max(high - low, 1), room)))
    first = -(-(low + shift) // every) * every - shift
    ticks = [low] if low + shift == 1 and every >= 5 else []
    ticks += list(range(first, high + 1, every))
    return Axis(label, low, high, tuple((tick, str(tick + shift)) for tick in ticks))


@dataclass(frozen=True)
class Frame:
    """The rectangle in which a chart's values lie."""

    left: float
    top: float
    right: float
    bottom: float

    def x(self, axis: Axis, value: float) -> float:
        return axis.at(value, self.left, self.right)

    def y(self, axis: Axis, value: float) -> float:
        return axis.at(value, self.bottom, self.top)


def draw_axes(
    root: Element, frame: Frame, x: Axis, y: Axis, *, x_ticks: Sequence[float] | None = None
) -> None:
    """Draw grid lines, ticks and labels; `x_ticks` are places of the ticks of x if its scale does not give them."""
    for value, written in y.ticks:
        level = frame.y(y, value)
        add(root, "path", class_="grid", d=f"M{n(frame.left)} {n(level)}H{n(frame.right)}")
        add(root, "text", written, class_="tick", x=frame.left - 6, y=level + 4, text_anchor="end")
    add(root, "path", class_="axis", d=f"M{n(frame.left)} {n(frame.bottom)}H{n(frame.right)}")
    for i, (value, written) in enumerate(x.ticks):
        place = x_ticks[i] if x_ticks is not None else frame.x(x, value)
        add(root, "path", class_="axis", d=f"M{n(place)} {n(frame.bottom)}v4")
        add(root, "text", written, class_="tick", x=place, y=frame.bottom + 16, text_anchor="middle")
    add(root, "text", y.label, class_="label", x=2, y=12)
    middle = (frame.left + frame.right) / 2
    add(root, "text", x.label, class_="label", x=middle, y=frame.bottom + 32, text_anchor="middle")


def _step(span: float, count: int) -> float:
    """Return the step of 1, 2 or 5 times a power of ten that cuts a span into at most about `count` parts."""
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
