"""The measured means against T, log-log, beside a line of slope −1/2."""

from __future__ import annotations

import math
from collections.abc import Sequence

from h2tune.report import formats, svg

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 360.0, 70.0, 20.0, 20.0, 50.0
INK, SEED, MEAN, LINE = "#333", "#9bb7d4", "#1f5f9e", "#b5532a"


def draw(
    horizons: Sequence[int], by_seed: Sequence[Sequence[float]], means: Sequence[float], slope: float
) -> str:
    """Return the chart as SVG."""
    guide = [means[0] * (t / horizons[0]) ** -0.5 for t in horizons]
    values = [v for row in by_seed for v in row] + guide
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    first, last = math.log10(horizons[0]), math.log10(horizons[-1])

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - math.log10(value)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(values: Sequence[float], colour: str, width: float, dashes: str = "none") -> None:
        points = " ".join(f"{svg.n(x(t))},{svg.n(y(v))}" for t, v in zip(horizons, values, strict=True))
        svg.add(
            root,
            "polyline",
            points=points,
            fill="none",
            stroke=colour,
            stroke_width=width,
            stroke_dasharray=dashes,
        )

    told = f"Measured slope {slope:.3f} from T = {horizons[0]} to {horizons[-1]}"
    root = svg.canvas("slope", "Mean squared gradient norm against rounds", told, HEIGHT, WIDTH)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("font-family", "sans-serif")
    root.set("font-size", "12")
    svg.add(root, "rect", width=WIDTH, height=HEIGHT, fill="#fff")
    for t in horizons:
        svg.add(root, "line", x1=x(t), x2=x(t), y1=TOP, y2=HEIGHT - BOTTOM, stroke="#e5e5e5")
        svg.add(root, "text", str(t), x=x(t), y=HEIGHT - BOTTOM + 18, text_anchor="middle", fill=INK)
    for value in _ticks(low, high):
        svg.add(root, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), stroke="#e5e5e5")
        svg.add(root, "text", f"{value:g}", x=LEFT - 8, y=y(value) + 4, text_anchor="end", fill=INK)
    for row in by_seed:
        line(row, SEED, 1)
    line(guide, LINE, 1.5, "6 4")
    line(means, MEAN, 2.5)
    for t, value in zip(horizons, means, strict=True):
        svg.add(root, "circle", cx=x(t), cy=y(value), r=4.0, fill=MEAN)
    legend = (
        (f"mean over seeds, slope {formats.fixed(slope, 2)}", MEAN),
        ("slope −0.50", LINE),
        ("single seeds", SEED),
    )
    for i, (text, colour) in enumerate(legend):
        where = TOP + 16 + 18 * i
        svg.add(root, "rect", x=WIDTH - 222, y=where - 9, width=14.0, height=10.0, fill=colour)
        svg.add(root, "text", text, x=WIDTH - 202, y=where, fill=INK)
    svg.add(root, "text", "rounds T (step size c / √T)", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 12,
            text_anchor="middle", fill=INK)  # fmt: skip
    svg.add(root, "text", "mean ‖∇F‖² over T rounds", x=16.0, y=HEIGHT / 2, text_anchor="middle", fill=INK,
            transform=f"rotate(-90 16 {svg.n(HEIGHT / 2)})")  # fmt: skip
    return svg.write(root) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= math.log10(m * 10.0**d) <= high]
