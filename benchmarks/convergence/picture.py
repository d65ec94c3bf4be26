"""The measured means against T, log-log, beside a line of slope −1/2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from h2tune.report import formats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import loglog

SEED = "#9bb7d4"


def draw(
    horizons: Sequence[int], by_seed: Sequence[Sequence[float]], means: Sequence[float], slope: float
) -> str:
    """Return the chart as SVG."""
    guide = [means[0] * (t / horizons[0]) ** -0.5 for t in horizons]
    named = f"mean over seeds, slope {formats.fixed(slope, 2)}"
    lines = [
        *(loglog.Line(row, SEED, "" if i else "single seeds", 1.0) for i, row in enumerate(by_seed)),
        loglog.Line(guide, loglog.GUIDE, "slope −0.50", 1.5, "6 4"),
        loglog.Line(means, loglog.COLOURS[0], named, marks=True),
    ]
    description = f"Measured slope {slope:.3f} from T = {horizons[0]} to {horizons[-1]}"
    title = "Mean squared gradient norm against rounds"
    return loglog.draw(
        horizons, lines, title, description, "rounds T (step size c / √T)", "mean ‖∇F‖² over T rounds"
    )
