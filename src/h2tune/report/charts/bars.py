"""Charts of stacked bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from h2tune.report.charts import axes
from h2tune.report.charts.draw import WIDTH, draw, framed, layer, own
from h2tune.report.charts.theme import PANEL


@dataclass(frozen=True)
class Stack:
    """One part of every bar: its name, its colour, and its value in each bar."""

    name: str
    colour: str
    values: Sequence[float]


def bars(
    key: str,
    title: str,
    description: str,
    stacks: Sequence[Stack],
    y: axes.Channel,
    *,
    unit: float,
    form: Callable[[float], str],
) -> Markup:
    """Draw stacked bars, one for each round.

    Args:
        key: A word that no other chart of the page has.
        title: What the chart shows.
        description: What can be seen in it.
        stacks: The parts of the bars, from the bottom.
        y: Vertical scale.
        unit: What values are divided by to get the unit of the scale.
        form: Writes a value with its unit.
    """
    rounds = max(len(stacks[0].values), 1)
    rows = [
        {"x": r + 1, "y": value / unit, "part": i, "colour": stack.colour,
         "note": f"round {r + 1}, {stack.name}: {form(value)}"}
        for i, stack in enumerate(stacks) for r, value in enumerate(stack.values) if value > 0
    ]  # fmt: skip
    width = min((WIDTH - 56) / rounds * 0.7, 36)
    style = {"width": width, "stroke": PANEL, "strokeWidth": 0.6 if width > 3 else 0}
    drawn = layer(rows, "bar", style, fill=own("colour"), order={"field": "part"}, detail={"field": "part"})
    drawn["encoding"]["y"] = {"field": "y", **y, "stack": "zero"}
    x = {"field": "x", **axes.count("round", 0.5, rounds + 0.5)}
    return draw(key, title, description, framed([drawn], 130, {"x": x, "y": {"field": "y", **y}}))
