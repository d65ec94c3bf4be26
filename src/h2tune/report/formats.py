"""Numbers as people read them. Pure; None is a dash everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NONE = "–"
SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
LEVEL = f"95{SPACE}%"
"""Level of all intervals."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as a percentage: 0.815 → 81.5 %."""
    return NONE if value is None else f"{bare_percent(value, digits)}{SPACE}%"


def bare_percent(value: float, digits: int = 1) -> str:
    """Return a fraction in per cent, without the sign: 0.815 → 81.5."""
    return f"{value * 100:.{digits}f}".replace("-", MINUS)


def percent_ends(low: float | None, high: float | None, digits: int = 1) -> str:
    """Return an interval of fractions in per cent: 5.0 to 9.1; empty if an end is not known."""
    return (
        "" if low is None or high is None else f"{bare_percent(low, digits)} to {bare_percent(high, digits)}"
    )


def point_ends(low: float | None, high: float | None) -> str:
    """Return an interval of differences in points: −1.0 to +2.5; empty if an end is not known."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def points(value: float | None, digits: int = 1) -> str:
    """Return a difference of fractions in percentage points, signed: 0.015 → +1.5."""
    if value is None:
        return NONE
    if math.isinf(value):
        return f"{MINUS if value < 0 else '+'}∞"
    shown = f"{value * 100:+.{digits}f}"
    return shown[1:] if float(shown) == 0 else shown.replace("-", MINUS)


def count(value: float | None) -> str:
    """Return a whole number with spaces between thousands: 1234567 → 1 234 567."""
    return NONE if value is None else f"{value:,.0f}".replace(",", SPACE).replace("-", MINUS)


def size(value: float | None) -> str:
    """Return bytes in decimal units: 15480 → 15.5 kB."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        digits = 0 if unit == "B" or value >= 100 else 1
        if value < 999.5:
            return f"{value:.{digits}f}{SPACE}{unit}"
        value /= 1000
    return f"{value:.1f}{SPACE}TB"


def duration(value: float | None) -> str:
    """Return seconds as a time: 0.04 s, 7.5 s, 2 min 05 s, 3 h 20 min."""
    if value is None:
        return NONE
    if value < 59.95:
        digits = 2 if value < 0.995 else 1
        return f"{value:.{digits}f}{SPACE}s"
    if value < 3599.5:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes}{SPACE}min{SPACE}{seconds:02d}{SPACE}s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours}{SPACE}h{SPACE}{minutes:02d}{SPACE}min"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to some significant digits: 0.0123, 45.6, 1.20 × 10⁻⁶."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 5:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        power = str(int(power)).translate(_SUPERSCRIPTS)
        return f"{mantissa}{SPACE}×{SPACE}10{power}".replace("-", MINUS)
    return f"{value:.{max(digits - 1 - exponent, 0)}f}".replace("-", MINUS)


def short(value: float) -> str:
    """Return a number in about six characters, for the ticks of a scale: 0.29, 150, 10⁻⁶, 2×10⁻⁶."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return number(value, 2).rstrip("0").rstrip(".") if "." in number(value, 2) else number(value, 2)
    mantissa, power = f"{value:.0e}".split("e")
    power = "10" + str(int(power)).translate(_SUPERSCRIPTS)
    return (power if mantissa == "1" else f"{mantissa}×{power}").replace("-", MINUS)


def probability(value: float | None) -> str:
    """Return a p-value: 0.031, < 0.001."""
    if value is None:
        return NONE
    return f"<{SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def shape(sizes: Iterable[int]) -> str:
    """Return a tensor's shape: 30 × 8 × 8, or "scalar"."""
    return f"{SPACE}×{SPACE}".join(str(size) for size in sizes) or "scalar"


def round_name(value: int | None) -> str:
    """Return a round's number as people count: 0 → 1; −1 → before."""
    if value is None:
        return NONE
    return "before" if value < 0 else str(value + 1)


def round_ranges(rounds: Iterable[int]) -> str:
    """Return rounds (from 0) as ranges (from 1): 0, 1, 2, 4 → 1–3, 5."""
    runs: list[list[int]] = []
    for value in sorted(set(rounds)):
        if runs and value == runs[-1][1] + 1 and value > 0:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    named = [(round_name(a), round_name(b)) for a, b in runs]
    return ", ".join(a if a == b else f"{a}–{b}" for a, b in named) or NONE


def moment(seconds: float | None) -> str:
    """Return seconds since the epoch as a date and time: 2026-01-31 09:30 UTC; empty if there is no such time."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return ""


def capital(text: str) -> str:
    """Return a text with a capital first letter: accuracy → Accuracy."""
    return text[:1].upper() + text[1:]


def measure_of(names: Iterable[str]) -> str:
    """Return what several clients are scored by: the name that all have ("": accuracy), or "score"."""
    found = {name or "accuracy" for name in names} or {"accuracy"}
    return found.pop() if len(found) == 1 else "score"


def plural(amount: int, noun: str) -> str:
    """Return a number and its noun: 1 round, 3 rounds."""
    return f"{count(amount)} {noun}" + ("" if amount == 1 else "s")
