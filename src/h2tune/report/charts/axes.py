"""Scales of charts: values → Vega-Lite encoding channels. Values outside a scale are drawn at its edge."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Channel = dict[str, Any]


def linear(label: str, values: Iterable[float], *, ticks: int = 5, percent: bool = False) -> Channel:
    """Return a scale over `values`, or from 0 to 1 if there are none; its ends are round numbers."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):  # a scale needs an extent
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    if percent:
        low, high = max(low, 0.0), min(high, 100.0)
    far = max(abs(low), abs(high)) >= 1e6 or high - low < 1e-4
    axis = {"title": label, "tickCount": ticks, **({"format": "~g"} if far else {})}
    return _channel({"domain": [low, high], "nice": ticks}, axis)


def log(label: str, values: Iterable[float]) -> Channel:
    """Return a logarithmic scale over the decades that hold the positive `values`; zero is drawn at its start."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [0.1, 1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    high += high == low
    every = -(-(high - low) // 6)
    ticks = (
        [f * 10.0**low for f in (1, 2, 5, 10)]
        if high - low == 1
        else [10.0**p for p in range(low, high + 1, every)]
    )
    axis = {"title": label, "values": ticks, "format": "~g"}
    return _channel({"type": "log", "domain": [10.0**low, 10.0**high]}, axis)


def count(label: str, low: float, high: float, *, ticks: int = 7, **axis: Any) -> Channel:
    """Return a scale of whole numbers, such as rounds, from `low` to `high`, with about `ticks` ticks."""
    power = 10 ** max(math.floor(math.log10(max(high - low, 1) / ticks)), 0)
    step = next(f * power for f in (1, 2, 5, 10) if f * power * ticks >= high - low)
    first, values = math.ceil(low), list(range(math.ceil(low / step) * step, math.floor(high) + 1, step))
    if not values or values[0] - first > step / 2:
        values = [first, *values]
    shown = {"title": label, "values": values, "format": "d", **axis}
    return _channel({"domain": [low, max(high, low + 1)], "nice": False}, shown)


def _channel(scale: dict[str, Any], axis: dict[str, Any]) -> Channel:
    return {"type": "quantitative", "scale": {"zero": False, "clamp": True, **scale}, "axis": axis}
