"""Charts of plain numbers: lines, stacked bars, intervals. Pure; each returns one SVG as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from h2tune.report.svg import (
    MARKS,
    WIDTH,
    Axis,
    Element,
    Frame,
    add,
    canvas,
    draw_axes,
    linear_axis,
    n,
    write,
)


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: What it shows.
        look: Class in the style sheet: colour and dashes.
        points: (x, y); a y of None is a gap.
        mark: Number of its mark in `MARKS`.
        spans: By x, (low, high) of an interval that is drawn as a whisker.
        notes: By x, what is shown when the mark is pointed at.
    """

    name: str
    look: str
    points: Sequence[tuple[float, float | None]]
    mark: int = 0
    spans: dict[float, tuple[float, float]] = field(default_factory=dict)
    notes: dict[float, str] = field(default_factory=dict)


def lines(
    key: str,
    title: str,
    description: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    rules: Sequence[tuple[float, str]] = (),
    bands: Sequence[tuple[float, str]] = (),
    marks: bool = True,
    height: float = 208,
) -> str:
    """Draw lines with marks.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        series: The lines, drawn in order.
        x: Horizontal axis.
        y: Vertical axis.
        rules: (y, look) of horizontal lines from side to side.
        bands: (end, name) of ranges of x that lie side by side.
        marks: Whether points have marks; those without a neighbour, which no line shows, always do.
        height: In the chart's units.
    """
    root = canvas(key, title, description, height)
    frame = Frame(44, 36 if bands else 24, WIDTH - 10, height - 42)
    _draw_bands(root, frame, x, bands)
    draw_axes(root, frame, x, y)
    for level, look in rules:
        place = n(frame.y(y, level))
        add(root, "path", class_=f"line {look}", d=f"M{n(frame.left)} {place}H{n(frame.right)}")
    for line in series:
        _draw_spans(root, frame, x, y, line)
    for line in series:
        _draw_line(root, frame, x, y, line, marks)
    return write(root)


def _draw_bands(root: Element, frame: Frame, x: Axis, bands: Sequence[tuple[float, str]]) -> None:
    """Part the bands by vertical lines and name as many of them above the frame as there is room for."""
    start, free = frame.left, 0.0
    for end, name in bands:
        stop = frame.x(x, end)
        if stop < frame.right:
            add(root, "path", class_="border", d=f"M{n(stop)} {n(frame.top - 12)}V{n(frame.bottom)}")
        middle, half = (start + stop) / 2, 3.4 * len(name)
        if middle - half >= free:
            add(root, "text", name, class_="tick", x=middle, y=frame.top - 4, text_anchor="middle")
            free = middle + half + 6
        start = stop


def _draw_spans(root: Element, frame: Frame, x: Axis, y: Axis, line: Series) -> None:
    for place, (low, high) in line.spans.items():
        across = n(frame.x(x, place))
        d = f"M{across} {n(frame.y(y, low))}V{n(frame.y(y, high))}"
        add(root, "path", class_=f"whisker {line.look}", d=d)


def _draw_line(root: Element, frame: Frame, x: Axis, y: Axis, line: Series, marks: bool) -> None:
    group = add(root, "g", class_=line.look)
    steps, drawing = [], False
    shown: list[tuple[float, float, bool]] = []
    for i, (at, value) in enumerate(line.points):
        if value is None:
            drawing = False
            continue
        steps.append(f"{'L' if drawing else 'M'}{n(frame.x(x, at))} {n(frame.y(y, value))}")
        follows = i + 1 < len(line.points) and line.points[i + 1][1] is not None
        shown.append((at, value, not drawing and not follows))
        drawing = True
    if steps:
        add(group, "path", class_="line", d="".join(steps))
    plain = []
    for at, value, single in shown:
        if not (single or marks):
            continue
        outline = f"M{n(frame.x(x, at))} {n(frame.y(y, value))}{MARKS[line.mark % len(MARKS)]}"
        if at in line.notes:
            add(add(group, "path", class_="mark", d=outline), "title", line.notes[at])
        else:
            plain.append(outline)
    if plain:
        add(group, "path", class_="mark", d="".join(plain))


def bars(
    key: str,
    title: str,
    description: str,
    names: Sequence[str],
    stacks: Sequence[tuple[str, str, Sequence[float]]],
    *,
    labels: tuple[str, str],
    form: Callable[[float], str],
    high: float | None = None,
    height: float = 196,
) -> str:
    """Draw stacked bars.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        names: Name of each bar.
        stacks: (name, look, value of each bar), from the bottom.
        labels: Labels of the horizontal and the vertical axis.
        form: Writes a value.
        high: Highest value of the axis, if it is not the chart's own.
        height: In the chart's units.
    """
    root = canvas(key, title, description, height)
    frame = Frame(58, 24, WIDTH - 10, height - 42)
    totals = [sum(column) for column in zip(*(values for _, _, values in stacks), strict=True)]
    y = linear_axis(
        labels[1], [0, (high if high is not None else max(totals, default=0)) or 1], form=form, count=4
    )
    every = max(1, -(-len(names) // 10))
    x = Axis(labels[0], 0, len(names), tuple((i + 0.5, names[i]) for i in range(0, len(names), every)))
    draw_axes(root, frame, x, y)
    _draw_bars(root, frame, y, [f"{labels[0]} {name}" for name in names], stacks, form)
    return write(root)


def _draw_bars(
    root: Element,
    frame: Frame,
    y: Axis,
    names: Sequence[str],
    stacks: Sequence[tuple[str, str, Sequence[float]]],
    form: Callable[[float], str],
) -> None:
    slot = (frame.right - frame.left) / max(len(names), 1)
    width = min(slot * 0.7, 36)
    bottoms = [0.0] * len(names)
    for name, look, values in stacks:
        group = add(root, "g", class_=look)
        for i, value in enumerate(values):
            if value <= 0:
                continue
            low, up = frame.y(y, bottoms[i]), frame.y(y, bottoms[i] + value)
            left = frame.left + (i + 0.5) * slot - width / 2
            bar = add(group, "rect", class_="bar", x=left, y=up, width=width, height=low - up)
            add(bar, "title", f"{names[i]}, {name}: {form(value)}")
            bottoms[i] += value


@dataclass(frozen=True)
class Interval:
    """A row of an interval plot; an end of None is not known and drawn as an arrow to the edge."""

    name: str
    mean: float
    low: float | None
    high: float | None
    look: str
    note: str


def intervals(key: str, title: str, description: str, rows: Sequence[Interval], x: Axis) -> str:
    """Draw means with intervals, one row each, about a line at zero."""
    height = 22 * len(rows) + 58
    root = canvas(key, title, description, height)
    frame = Frame(112, 12, WIDTH - 14, height - 42)
    for value, written in x.ticks:
        place = frame.x(x, value)
        look = "zero" if abs(value) < 1e-12 else "grid"
        add(root, "path", class_=look, d=f"M{n(place)} {n(frame.top)}V{n(frame.bottom)}")
        add(root, "text", written, class_="tick", x=place, y=frame.bottom + 15, text_anchor="middle")
    for i, row in enumerate(rows):
        _draw_interval(root, frame, x, row, frame.top + 13 + 22 * i)
    middle = (frame.left + frame.right) / 2
    add(root, "text", x.label, class_="label", x=middle, y=height - 8, text_anchor="middle")
    return write(root)


def _draw_interval(root: Element, frame: Frame, x: Axis, row: Interval, y: float) -> None:
    name = row.name if len(row.name) <= 16 else row.name[:15] + "…"
    label = add(root, "text", name, class_="tick", x=frame.left - 8, y=y + 4, text_anchor="end")
    add(label, "title", row.name)
    group = add(root, "g", class_=row.look)
    start = frame.left if row.low is None else frame.x(x, row.low)
    stop = frame.right if row.high is None else frame.x(x, row.high)
    add(group, "path", class_="line", d=f"M{n(start)} {n(y)}H{n(stop)}")
    for end, known, inward in ((start, row.low, 4), (stop, row.high, -4)):
        arrow = f"M{n(end + inward)} {n(y - 4)}l{-inward} 4l{inward} 4"
        add(group, "path", class_="line", d=arrow if known is None else f"M{n(end)} {n(y - 4)}v8")
    mark = add(group, "path", class_="mark", d=f"M{n(frame.x(x, row.mean))} {n(y)}{MARKS[0]}")
    add(mark, "title", row.note)
