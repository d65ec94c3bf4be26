"""Heat maps. Pure; each call returns one SVG as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from h2tune.report.svg import WIDTH, Axis, Element, Frame, add, canvas, n, write

LEVELS = 16
"""Colours above the background; h0 (background), h1 … h16 in the style sheet."""
GAP, RIGHT, TOP, BELOW = 16, 52, 38, 42


@dataclass(frozen=True)
class HeatMap:
    """One map: its caption and its values (rows, columns), row 0 at the top."""

    caption: str
    values: Sequence[Sequence[float]]


def heat_maps(
    key: str,
    title: str,
    description: str,
    maps: Sequence[HeatMap],
    rows: Axis,
    columns: Axis,
    *,
    high: float,
    form: Callable[[float], str],
    left: float = 34,
    cell_height: float = 0,
) -> str:
    """Draw one or two heat maps of the same shape side by side, from 0 to `high`, with the scale of their colours.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        maps: One or two.
        rows: Axis over the numbers of the rows; ticks are at the middle of a row.
        columns: The same of the columns.
        high: Value of the last colour.
        form: Writes a value beside the colours.
        left: Room for what is written at the rows.
        cell_height: Height of a row; 0 makes the maps square (a single one as large as one of two).
    """
    width = (WIDTH - left - RIGHT - GAP) / 2 if len(maps) == 2 or not cell_height else WIDTH - left - RIGHT
    height = cell_height * len(maps[0].values) or width
    root = canvas(key, title, description, TOP + height + BELOW)
    add(root, "text", rows.label, class_="label", x=2, y=12)
    for i, shown in enumerate(maps):
        at = left + i * (width + GAP)
        frame = Frame(at, TOP, at + width, TOP + height)
        add(root, "text", shown.caption, class_="label", x=at + width / 2, y=TOP - 8, text_anchor="middle")
        _draw_cells(root, frame, shown.values, high)
        _draw_columns(root, frame, columns, len(shown.values[0]))
        if i == 0:
            _draw_rows(root, frame, rows, len(shown.values))
    end = left + len(maps) * width + (len(maps) - 1) * GAP
    place = (left + end) / 2
    add(root, "text", columns.label, class_="label", x=place, y=TOP + height + 34, text_anchor="middle")
    _draw_scale(root, Frame(end + 8, TOP, end + 17, TOP + height), high, form)
    return write(root)


def level(value: float, high: float) -> int:
    """Return the number of a value's colour: 0 (the background) to `LEVELS`."""
    if high <= 0 or not math.isfinite(value):
        return 0
    return round(min(max(value / high, 0.0), 1.0) * LEVELS)


def _draw_cells(root: Element, frame: Frame, values: Sequence[Sequence[float]], high: float) -> None:
    """Draw cells as one path a colour and runs of equal cells as one piece: a tenth of the size of single squares."""
    across, down = len(values[0]), len(values)
    _draw_box(root, frame, "h0")
    pieces: dict[int, list[str]] = {}
    for row, cells in enumerate(values):
        levels = [level(value, high) for value in cells]
        start = 0
        for column in range(1, across + 1):
            if column < across and levels[column] == levels[start]:
                continue
            run = column - start
            pieces.setdefault(levels[start], []).append(f"M{start} {row}h{run}v1h-{run}z")
            start = column
    scale = f"scale({(frame.right - frame.left) / across:.4f} {(frame.bottom - frame.top) / down:.4f})"
    group = add(root, "g", transform=f"translate({n(frame.left)} {n(frame.top)}) {scale}")
    for number in sorted(pieces.keys() - {0}):
        add(group, "path", class_=f"h{number}", d="".join(pieces[number]))
    _draw_box(root, frame, "box")


def _draw_box(root: Element, frame: Frame, look: str) -> None:
    width, height = frame.right - frame.left, frame.bottom - frame.top
    add(root, "rect", class_=look, x=frame.left, y=frame.top, width=width, height=height)


def _draw_columns(root: Element, frame: Frame, axis: Axis, across: int) -> None:
    for value, written in axis.ticks:
        place = frame.left + (value - axis.low + 0.5) / across * (frame.right - frame.left)
        add(root, "path", class_="axis", d=f"M{n(place)} {n(frame.bottom)}v3")
        add(root, "text", written, class_="tick", x=place, y=frame.bottom + 15, text_anchor="middle")


def _draw_rows(root: Element, frame: Frame, axis: Axis, down: int) -> None:
    for value, written in axis.ticks:
        place = frame.top + (value - axis.low + 0.5) / down * (frame.bottom - frame.top)
        add(root, "path", class_="axis", d=f"M{n(frame.left)} {n(place)}h-3")
        add(root, "text", written, class_="tick", x=frame.left - 6, y=place + 4, text_anchor="end")


def _draw_scale(root: Element, frame: Frame, high: float, form: Callable[[float], str]) -> None:
    step = (frame.bottom - frame.top) / (LEVELS + 1)
    for number in range(LEVELS + 1):
        top = frame.bottom - (number + 1) * step
        add(
            root,
            "rect",
            class_=f"h{number}",
            x=frame.left,
            y=top,
            width=frame.right - frame.left,
            height=step + 0.2,
        )
    _draw_box(root, frame, "box")
    for share, place in (
        (0.0, frame.bottom),
        (0.5, (frame.top + frame.bottom) / 2 + 4),
        (1.0, frame.top + 8),
    ):
        add(root, "text", form(share * high), class_="tick", x=frame.right + 4, y=place)
