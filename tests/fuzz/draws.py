"""One source of choices for both fuzzers: hypothesis in the default tests, atheris (libFuzzer) in `make fuzz`."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, Protocol


class Draw(Protocol):
    """Choices drawn by a fuzzer."""

    def integer(self, low: int, high: int) -> int:
        """Return an integer between two bounds, inclusive."""

    def binary(self, most: int) -> bytes:
        """Return up to `most` bytes."""


ODD: tuple[Any, ...] = (
    None, True, "", "\x00", "\ud800", "one", "../up", "9" * 5000, "NaN", "1_0", "٢", "F64", "BF16", "F8_E8M0", "F4",
    -1, 0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, 2**64, 10**4000, 1.5, float("nan"), float("inf"), 1e308,
    [], {}, [[]], [{}], {"": ""},
)  # fmt: skip
"""Values that are often forgotten."""
DEEPEST = 3000


def pick(draw: Draw, items: Sequence[Any]) -> Any:
    """Return one of some items, a copy."""
    return copy.deepcopy(items[draw.integer(0, len(items) - 1)])


def bytes_changed(draw: Draw, data: bytes, changes: int = 4) -> bytes:
    """Return data with some bytes set, cut out, put in or repeated."""
    for _ in range(draw.integer(0, changes)):
        kind, at = draw.integer(0, 4), draw.integer(0, max(len(data) - 1, 0))
        length = draw.integer(1, 16)
        if kind == 0:
            data = data[:at] + bytes([draw.integer(0, 255)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + draw.binary(length) + data[at:]
        elif kind == 3:
            data = data[: at + length] + data[at:]
        else:
            data = data[:at]
    return data


def structure_changed(draw: Draw, value: Any, changes: int = 3) -> Any:
    """Return JSON with some entries replaced, removed, renamed, added, or nested deeply."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.integer(0, changes)):
        value = _changed(draw, value)
    return value


def _changed(draw: Draw, value: Any, levels: int = 6) -> Any:
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if keys and levels and draw.integer(0, 3):
        key = pick(draw, keys)
        value[key] = _changed(draw, value[key], levels - 1)
        return value
    kind = draw.integer(0, 4)
    if kind == 0 and keys:
        del value[pick(draw, keys)]
        return value
    if kind == 1 and isinstance(value, dict):
        value[pick(draw, ("one", "event", "unit", "__metadata__", "delta.attn.k", "x" * 2000))] = pick(
            draw, ODD
        )
        return value
    if kind == 2 and isinstance(value, list):
        return value * draw.integer(2, 40)
    if kind == 3:
        for _ in range(draw.integer(1, 40)):
            value = [value]
        return value
    if kind == 4 and isinstance(value, int | float) and not isinstance(value, bool):
        return value + draw.integer(-2, 2)
    return pick(draw, ODD)


def nested(text: str, levels: int) -> str:
    """Return JSON text in nested lists, too deep for a recursive parser."""
    return "[" * levels + text + "]" * levels


def dumped(draw: Draw, value: Any) -> str:
    """Return JSON text of a value, sometimes nested deeply."""
    text = json.dumps(value)
    return nested(text, draw.integer(900, DEEPEST)) if draw.integer(0, 15) == 15 else text
