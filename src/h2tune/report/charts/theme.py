"""Colours, line styles and marks of all charts.

Charts are drawn in the colours of the light theme. `dark_rules` returns the style rules that replace each of them in
the dark theme. Colours differ in lightness as well as in hue (after Okabe and Ito), and lines also in their marks.
"""

from __future__ import annotations

from dataclasses import dataclass

INK, SOFT, FAINT, GRID, PANEL, BAD = "#1b2129", "#56616e", "#8b96a3", "#d5dbe2", "#f6f8fa", "#b3261e"
SERIES = ("#0a66b2", "#c65a00", "#00795a", "#a3407f", "#6a5d00", "#4a4f57")
ACTIVITIES = ("#9aa5b1", "#0a66b3", "#e08a2e", "#1f9d78", "#a34080")
RAMP = (
    "#eef2f6", "#dce8f2", "#cadfee", "#b8d5ea", "#a6cbe6", "#8fbde0", "#77afda", "#5fa1d4", "#4593cd",
    "#3b85c1", "#3077b4", "#2669a8", "#1c5b9c", "#174c87", "#123d72", "#0d2f5d", "#08224a",
)  # fmt: skip
"""Colours of heat maps, from zero to the largest value."""

DARK = {
    **dict(zip((INK, SOFT, FAINT, GRID, PANEL, BAD),
               ("#e4e9ef", "#a5b0bd", "#77828f", "#333d49", "#181f27", "#ff8f86"), strict=True)),
    **dict(zip(SERIES, ("#5fb0f5", "#ff9d57", "#43c9a0", "#e590c8", "#d9c64a", "#b8c0ca"), strict=True)),
    **dict(zip(ACTIVITIES, ("#6d7884", "#3d90dc", "#f0a45a", "#3bb691", "#d77fb9"), strict=True)),
    **dict(zip(RAMP, (
        "#1a212a", "#1b2b3c", "#1b3550", "#1a4063", "#164a78", "#1b5789", "#20649b", "#2572ad", "#2a80c0",
        "#4390cb", "#59a0d5", "#6eb0e0", "#83c0ea", "#9fcef0", "#badcf5", "#d5eafa", "#f0f8ff",
    ), strict=True)),
}  # fmt: skip
"""Colour of the light theme → colour of the dark theme."""

SHAPES = {
    "circle": "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z",
    "square": "M-0.9,-0.9H0.9V0.9H-0.9Z",
    "diamond": "M0,-1.3L1.3,0L0,1.3L-1.3,0Z",
    "up": "M0,-1.2L1.2,1H-1.2Z",
    "down": "M0,1.2L1.2,-1H-1.2Z",
    "plus": "M-1.2,-0.4H-0.4V-1.2H0.4V-0.4H1.2V0.4H0.4V1.2H-0.4V0.4H-1.2Z",
    "cross": "M-1.6,-1L-1,-1.6L0,-0.6L1,-1.6L1.6,-1L0.6,0L1.6,1L1,1.6L0,0.6L-1,1.6L-1.6,1L-0.6,0Z",
}
"""Outlines of marks, about the origin and with a radius of about 1."""


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Args:
        colour: One of the colours above.
        shape: Name of its mark in `SHAPES`; empty for none.
        dash: Lengths of dashes and gaps; empty for a solid line.
        line: Whether a line joins its points.
        hollow: Whether its marks are outlines.
    """

    colour: str
    shape: str = ""
    dash: tuple[float, ...] = ()
    line: bool = True
    hollow: bool = False


FEDERATED = Look(SERIES[0], "circle")
ALONE = Look(SERIES[1], "square", (6, 4))
MAJORITY = Look(SOFT, dash=(1.5, 3))
FAILED = Look(BAD, "cross", line=False)
CLEAR = Look(SERIES[0], "circle")
UNCLEAR = Look(SERIES[5], "circle", hollow=True)
NUMBERED = tuple(
    Look(colour, shape)
    for colour, shape in zip(SERIES, ("circle", "square", "diamond", "up", "down", "plus"), strict=True)
)
"""Looks of series that have no look of their own, in order."""


def activity_colour(number: int) -> str:
    """Return the colour of an activity in a chart of time."""
    return ACTIVITIES[number] if number < len(ACTIVITIES) else SERIES[5]


def dark_rules() -> str:
    """Return the style rules that give charts the colours of the dark theme."""
    rules = "".join(
        f'.chart [fill="{light}"]{{fill:{dark}}}.chart [stroke="{light}"]{{stroke:{dark}}}\n'
        for light, dark in DARK.items()
    )
    return f"@media screen and (prefers-color-scheme: dark) {{\n{rules}}}\n"
