from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from h2tune.report import formats
from h2tune.report.heat import LEVELS, HeatMap, heat_maps, level
from h2tune.report.intervals import difference, wilson
from h2tune.report.plots import Interval, Series, bars, intervals, lines
from h2tune.report.svg import WIDTH, Axis, count_axis, linear_axis, log_axis

UNIT = Axis("y", 0, 1, ((0, "0"), (1, "1")))


def by_class(svg: str, name: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter() if name in (e.get("class") or "").split()]


def test_wilson_interval_by_hand() -> None:
    # Newcombe 1998, example 81 of 263, and no success in 20
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(1, 20)[1] == 1


def test_interval_of_a_difference_by_hand() -> None:
    # Newcombe 1998b, table II, method 10: 56/70 against 48/80, 9/10 against 3/10
    assert difference(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9 / 10, 10, 3 / 10, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [], [-3.0, 1e-7], [1e9, 1e9 + 1], [0.2, math.nan, 0.9]]
)
def test_linear_axis_holds_its_values_between_round_ticks(values: list[float]) -> None:
    axis = linear_axis("loss", values)
    finite = [v for v in values if math.isfinite(v)]
    assert all(axis.low <= v <= axis.high for v in finite)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 9
    assert len({text for _, text in axis.ticks}) == len(axis.ticks) or values == [1e9, 1e9 + 1]


def test_linear_axis_stays_within_bounds() -> None:
    axis = linear_axis("accuracy", [0.93, 1.0], bounds=(0, 1))
    assert axis.high <= 1 + 1e-9


@pytest.mark.parametrize("values", [[0.0], [0.02, 3.0], [1.0], [1e-9, 1e9], []])
def test_log_axis_holds_positive_values_and_puts_zero_at_its_start(values: list[float]) -> None:
    axis = log_axis("norm", values)
    assert all(axis.low * 0.999 <= v <= axis.high * 1.001 for v in values if v > 0)
    assert axis.at(0.0, 10, 20) == 10
    assert 2 <= len(axis.ticks) <= 8


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 1), (0, 3), (1, 20), (0, 29), (1, 12_345)])
def test_count_axis_has_whole_ticks_in_range(low: int, high: int) -> None:
    axis = count_axis("round", low, high)
    assert 1 <= len(axis.ticks) <= 12
    assert all(low <= value <= high and value == int(value) for value, _ in axis.ticks)


def test_a_line_breaks_where_values_are_missing() -> None:
    series = Series("a", "s0", [(0, 0.1), (1, None), (2, 0.5), (3, 0.7)])
    (path,) = (e for e in by_class(lines("k", "t", "d", [series], count_axis("x", 0, 3), UNIT), "line"))
    d = path.get("d") or ""
    assert (d.count("M"), d.count("L")) == (2, 1)


def test_single_points_have_a_mark_even_without_marks() -> None:
    series = Series("a", "s0", [(0, 0.1), (1, None), (2, 0.5), (3, 0.7)])
    svg = lines("k", "t", "d", [series], count_axis("x", 0, 3), UNIT, marks=False)
    assert len(by_class(svg, "mark")) == 1


def test_lines_are_where_the_axes_say() -> None:
    series = Series("a", "s0", [(0, 0.0), (2, 1.0)])
    (path,) = by_class(lines("k", "t", "d", [series], count_axis("x", 0, 2), UNIT, height=200), "line")
    assert path.get("d") == f"M44 158L{WIDTH - 10} 24"


def test_charts_have_a_title_and_a_description_and_escape_text() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    svg = lines("k", hostile, hostile, [Series(hostile, "s0", [(0, 0.5)], notes={0: hostile})], UNIT, UNIT)
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert [child.text for child in root[:2]] == [hostile, hostile]
    assert root.get("aria-labelledby") == "k-title k-desc"
    assert [child.get("id") for child in root[:2]] == ["k-title", "k-desc"]


def test_levels_of_colour_reach_from_background_to_the_last() -> None:
    assert [level(v, 2.0) for v in (-1, 0, 1, 2, 5)] == [0, 0, LEVELS // 2, LEVELS, LEVELS]
    assert level(math.nan, 1) == level(1, 0) == 0


def test_heat_maps_draw_every_cell_that_is_not_background() -> None:
    values = [[1.0, 1.0, 0.0], [0.0, 0.5, 1.0]]
    rows, columns = count_axis("slot", 0, 1), count_axis("block", 0, 2)
    svg = heat_maps(
        "k", "t", "d", [HeatMap("round 1", values)] * 2, rows, columns, high=1, form=str, cell_height=9
    )
    cells = [
        e.get("d") for e in ElementTree.fromstring(svg).iter() if e.tag == "path" and e.get("class") == "h16"
    ]
    assert cells == ["M0 0h2v1h-2zM2 1h1v1h-1z"] * 2
    assert [e.text for e in by_class(svg, "label")] == ["slot", "round 1", "round 1", "block"]


def test_bars_are_stacked_and_as_high_as_their_values() -> None:
    stacks = [("load", "t0", [1.0, 0.0]), ("train", "t1", [3.0, 2.0])]
    svg = bars("k", "t", "d", ["1", "2"], stacks, labels=("round", "time"), form=formats.duration, high=4)
    sizes = [(float(e.get("y") or 0), float(e.get("height") or 0)) for e in by_class(svg, "bar")]
    assert [h for _, h in sizes] == pytest.approx([32.5, 97.5, 65], abs=0.11)
    assert sizes[0][0] == pytest.approx(sizes[1][0] + sizes[1][1], abs=0.11)
    assert [e[0].text for e in by_class(svg, "bar")][1] == f"round 1, train: 3.0{formats.SPACE}s"


def test_intervals_point_outwards_where_an_end_is_not_known() -> None:
    rows = [Interval("m" * 30, 0.1, None, 0.3, "clear", "note"), Interval("b", 0, 0, 0, "unclear", "note")]
    svg = intervals("k", "t", "d", rows, linear_axis("points", [0, 0.3]))
    names = [e.text for e in by_class(svg, "tick") if e.get("text-anchor") == "end"]
    assert names == ["m" * 15 + "…", "b"]
    assert sum("l-4 4l4 4" in (e.get("d") or "") for e in by_class(svg, "line")) == 1
    assert len(by_class(svg, "zero")) == 1


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
