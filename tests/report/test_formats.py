from __future__ import annotations

import math

import pytest

from h2tune.report import formats
from h2tune.report.intervals import difference, mean_difference, wilson


def test_wilson_interval_by_hand() -> None:
    # Newcombe 1998, example 81 of 263, and no success in 20
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(1, 20)[1] == 1


def test_interval_of_a_difference_by_hand() -> None:
    # Newcombe 1998b, table II, method 10: 56/70 against 48/80, 9/10 against 3/10
    assert difference(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9 / 10, 10, 3 / 10, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_interval_of_a_mean_of_differences_by_hand() -> None:
    # of one: its own; of two equal ones: as wide as one, divided by the square root of 2
    assert mean_difference([(0.1, (0.0, 0.3))]) == pytest.approx((0.0, 0.3))
    low, high = mean_difference([(0.1, (0.0, 0.3))] * 2)
    assert (low, high) == pytest.approx((0.1 - 0.1 / math.sqrt(2), 0.1 + 0.2 / math.sqrt(2)))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(0.8149), "81.5 %"),
        (formats.percent(None), "–"),
        (formats.points(0.0151), "+1.5"),
        (formats.points(-0.03), "−3.0"),
        (formats.points(-0.0001), "0.0"),
        (formats.points(-math.inf), "−∞"),
        (formats.count(1_234_567), "1 234 567"),
        (formats.size(999), "999 B"),
        (formats.size(15_480), "15.5 kB"),
        (formats.size(999_999), "1.0 MB"),
        (formats.size(0), "0 B"),
        (formats.duration(0.04), "0.04 s"),
        (formats.duration(59.99), "1 min 00 s"),
        (formats.duration(125), "2 min 05 s"),
        (formats.duration(3599.9), "1 h 00 min"),
        (formats.duration(12_000), "3 h 20 min"),
        (formats.number(0.01234), "0.0123"),
        (formats.number(-1234.5), "−1234"),
        (formats.number(1.2e-6), "1.20 × 10⁻⁶"),
        (formats.short(0.5), "0.5"),
        (formats.short(150), "150"),
        (formats.short(0.0712), "0.071"),
        (formats.short(1e-6), "10⁻⁶"),
        (formats.short(2e-6), "2×10⁻⁶"),
        (formats.short(0), "0"),
        (formats.probability(0.0004), "< 0.001"),
        (formats.round_ranges([0, 1, 2, 4]), "1–3, 5"),
        (formats.round_ranges([-1, 0]), "before, 1"),
        (formats.round_ranges([]), "–"),
        (formats.moment(1e30), ""),
        (formats.moment(0), "1970-01-01 00:00 UTC"),
        (formats.shape([]), "scalar"),
        (formats.plural(1, "round") + formats.plural(0, "round"), "1 round0 rounds"),
    ],
)
def test_numbers_as_people_read_them(written: str, expected: str) -> None:
    assert written.replace(formats.SPACE, " ") == expected
