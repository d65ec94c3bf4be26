"""Values from JSON → values of one type each; what does not fit becomes None or empty. Pure."""

from __future__ import annotations

import math
from typing import Any

LONGEST = 2000  # characters of a text that are shown: a traceback as a reason must not fill the page


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else (NaN, infinities, truth values, text).

    What is beyond 10¹⁰⁰ counts as infinite, what is below 10⁻¹⁰⁰ as zero: charts could not place it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    if not math.isfinite(result) or abs(result) > 1e100:
        return None
    return result if abs(result) >= 1e-100 else 0.0


def integer(value: Any) -> int | None:
    """Return a whole number, or None for anything else."""
    result = number(value)
    return int(result) if result is not None and result == int(result) else None


def flag(value: Any) -> bool | None:
    """Return a truth value, or None for anything else."""
    return value if isinstance(value, bool) else None


def text(value: Any) -> str:
    """Return printable text: controls and lone surrogates become U+FFFD, anything but text and numbers is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    result = str(value)
    if len(result) <= LONGEST and result.isprintable():
        return result
    if len(result) > LONGEST:
        result = result[: LONGEST - 1] + "…"
    return "".join(c if c in "\n\t" or _printable(c) else "\N{REPLACEMENT CHARACTER}" for c in result)


def texts(value: Any) -> tuple[str, ...]:
    """Return a list's texts."""
    return tuple(text(item) for item in items(value))


def items(value: Any) -> list[Any]:
    """Return a list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def record(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def numbers(value: Any) -> dict[str, float]:
    """Return an object's finite numbers by name."""
    found = {text(key): number(item) for key, item in record(value).items()}
    return {key: item for key, item in found.items() if item is not None}


def matrix(value: Any) -> list[list[float]] | None:
    """Return a matrix (rows, columns) with 0 for what is not finite; None if it is empty or ragged."""
    rows = [[number(item) or 0.0 for item in items(row)] for row in items(value)]
    return rows if rows and rows[0] and len({len(row) for row in rows}) == 1 else None


def _printable(character: str) -> bool:
    # U+FFFE and U+FFFF are not XML; bidirectional controls could show another text than the real one
    code = ord(character)
    controls = code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF)
    return not controls and not (0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069)
