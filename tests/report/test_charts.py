from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from helpers import federations

from h2tune.report.charts import axes, theme
from h2tune.report.charts.bars import Stack, bars
from h2tune.report.charts.draw import DRAWING
from h2tune.report.charts.heat import Cells, HeatMap, heat_maps, numbered
from h2tune.report.charts.lines import Series, lines
from h2tune.report.charts.ranges import Range, ranges

HOSTILE = "<script>alert(1)</script>&\"'{{ 7 * 7 }}${datum.x}"
BLUE, ORANGE = theme.SERIES[:2]
X, UNIT = axes.count("x", 0, 3), axes.linear("y", [0, 1])


def elements(svg: str, **attributes: str) -> list[ElementTree.Element]:
    """Return the elements that have these attributes."""
    found = ElementTree.fromstring(svg).iter()
    return [e for e in found if all(e.get(name) == value for name, value in attributes.items())]


def boxes(svg: str) -> Iterator[tuple[float, ...]]:
    """Yield (left, top, width, height) of every rectangle that is drawn as a path."""
    for outline in re.findall(r"M([-\d.]+),([-\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+Z", svg):
        yield tuple(map(float, outline))


def every_kind(text: str = "t") -> list[str]:
    values = [[0.0, 0.5], [1.0, 1.0]]
    return [
        lines("k1", text, text, [Series(text, theme.FEDERATED, [(0, 0.5), (1, 0.7)], {0: (0.4, 0.6)}, {0: text})],
              X, UNIT, rules=[(0.3, theme.MAJORITY)]),
        bars("k2", text, text, [Stack(text, BLUE, [1.0])], UNIT, unit=1, form=lambda v: text),
        ranges("k3", text, text, [Range(text, 0.1, None, 0.3, theme.CLEAR, text)], UNIT),
        heat_maps("k4", text, text, [HeatMap(text, values)], Cells(text, 0, 2, (text, f"{text} 2")),
                  numbered(text, 0, 2), high=1, height=50),
    ]  # fmt: skip


def test_charts_have_a_title_and_a_description_and_escape_text() -> None:
    for svg in every_kind(HOSTILE):
        assert "<script" not in svg
        root = ElementTree.fromstring(svg)
        key = root[0].get("id", "").removesuffix("-title")
        assert [child.tag for child in root[:2]] == ["title", "desc"]
        assert [child.text for child in root[:2]] == [HOSTILE, HOSTILE]
        assert root.get("aria-labelledby") == f"{key}-title {key}-desc"
        shown = {e.text for e in root.iter("text")} | {e.text for e in root.iter("title")}
        assert HOSTILE in shown


def test_charts_draw_and_do_nothing_else() -> None:
    for svg in every_kind():
        root = ElementTree.fromstring(svg)
        assert {e.tag for e in root.iter()} <= {"svg", "title", "desc", "g", "path", "line", "rect", "text"}
        for element in list(root.iter())[3:]:
            assert element.attrib.keys() <= DRAWING
            assert not any("url" in value or "NaN" in value for value in element.attrib.values())


def test_equal_numbers_give_equal_charts_in_another_process() -> None:
    code = (
        "from h2tune.report.charts import axes, theme; from h2tune.report.charts.lines import Series, lines;"
        "print(lines('k', 't', 'd', [Series('a', theme.ALONE, [(0, 0.1), (2, 0.7)])],"
        " axes.count('x', 0, 3), axes.linear('y', [0, 1])), end='')"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], env=federations.environment(), check=True, capture_output=True
    )
    own = lines("k", "t", "d", [Series("a", theme.ALONE, [(0, 0.1), (2, 0.7)])], X, UNIT)
    assert other.stdout.decode() == own


def test_every_colour_has_one_for_the_dark_theme() -> None:
    rules = theme.dark_rules()
    for svg in every_kind():
        used = {e.get(name) for e in ElementTree.fromstring(svg).iter() for name in ("fill", "stroke")}
        for colour in used - {None, "none"}:
            assert f'[fill="{colour}"]' in rules and f'[stroke="{colour}"]' in rules


def test_a_line_breaks_where_values_are_missing() -> None:
    series = Series("a", theme.NUMBERED[0], [(0, 0.1), (1, None), (2, 0.5), (3, 0.7)])
    (path,) = (
        e for e in elements(lines("k", "t", "d", [series], X, UNIT), stroke=BLUE) if e.get("fill") is None
    )
    d = path.get("d") or ""
    assert (d.count("M"), d.count("L"), d.count("Z")) == (2, 1, 1)  # a single point is a line to itself


def test_a_long_line_has_marks_only_where_no_line_shows_the_point() -> None:
    points = [(float(i), 0.5) for i in range(60)]
    series = Series("a", theme.NUMBERED[0], [*points, (60, None), (61, 0.7), (62, None)])
    svg = lines("k", "t", "d", [series], axes.count("x", 0, 70), UNIT)
    assert len(elements(svg, fill=BLUE)) == 1


def test_values_beyond_the_scale_are_drawn_at_its_edge() -> None:
    series = Series("failed", theme.FAILED, [(0, -5.0), (1, None), (2, 1e99)])
    marks = elements(lines("k", "t", "d", [series], X, UNIT), fill=theme.BAD)
    assert [m.get("transform") for m in marks] == ["translate(0,142)", "translate(176,0)"]


def test_lines_are_where_the_scales_say() -> None:
    series = Series("a", theme.NUMBERED[0], [(0, 0.0), (3, 1.0)])
    (path,) = (
        e for e in elements(lines("k", "t", "d", [series], X, UNIT), stroke=BLUE) if e.get("fill") is None
    )
    assert path.get("d") == "M0,142L264,0"


def test_zero_lies_at_the_start_of_a_logarithmic_scale() -> None:
    series = Series("a", theme.NUMBERED[0], [(0, 0.0), (3, 10.0)])
    marks = elements(lines("k", "t", "d", [series], X, axes.log("norm", [0.0, 0.1, 10.0])), fill=BLUE)
    assert [m.get("transform") for m in marks] == ["translate(0,142)", "translate(264,0)"]


def test_heat_maps_draw_every_cell_that_is_not_zero() -> None:
    values = [[1.0, 1.0, 0.0], [0.0, 0.5, 1.0]]
    svg = heat_maps("k", "t", "d", [HeatMap("round 1", values)] * 2, numbered("slot", 0, 2), numbered("block", 0, 3),
                    high=1, height=40)  # fmt: skip
    last = [e.get("d", "") for e in elements(svg, fill=theme.RAMP[-1])]
    assert [d.count("M") for d in last] == [3, 3]
    assert [e.get("d", "").count("M") for e in elements(svg, fill=theme.RAMP[8])] == [1, 1]
    assert {"slot", "block", "round 1"} <= {e.text for e in elements(svg) if e.tag == "text"}


@pytest.mark.parametrize(("value", "number"), [(0.01, 0), (0.5, 8), (2.0, 16)])
def test_colours_reach_from_the_first_to_the_last(value: float, number: int) -> None:
    svg = heat_maps(
        "k", "t", "d", [HeatMap("m", [[value]])], numbered("a", 0, 1), numbered("b", 0, 1), high=1
    )
    assert theme.RAMP[number] in {e.get("fill") for e in elements(svg)}


def test_bars_are_stacked_and_as_high_as_their_values() -> None:
    stacks = [Stack("load", BLUE, [1.0, 0.0]), Stack("train", ORANGE, [3.0, 2.0])]
    svg = bars("k", "t", "d", stacks, axes.linear("s", [0, 4], ticks=4), unit=1, form=lambda v: f"{v:.1f} s")
    drawn = [e for e in elements(svg) if e.tag == "path" and e.get("fill") in (BLUE, ORANGE)]
    found = {e[0].text: next(boxes(e.get("d", "")))[1::2] for e in drawn}
    assert found == {
        "round 1, load: 1.0 s": (97.5, 32.5),
        "round 1, train: 3.0 s": (0.0, 97.5),
        "round 2, train: 2.0 s": (65.0, 65.0),
    }


def test_intervals_point_outwards_where_an_end_is_not_known() -> None:
    rows = [Range("m" * 40, 0.1, None, 0.3, theme.CLEAR, "note"), Range("b", 0, 0, 0, theme.UNCLEAR, "note")]
    svg = ranges("k", "t", "d", rows, axes.linear("points", [0, 0.3]))
    names = [e.text for e in elements(svg) if (e.text or "").startswith(("m", "b")) and e.tag == "text"]
    assert names[0].endswith("…") and len(names[0]) < 30 and names[1] == "b"
    arrows = [e for e in elements(svg, fill=BLUE) if e.get("transform") == "translate(0,11)"]
    assert len(arrows) == 1


def test_a_method_with_overrides_has_a_line_for_each() -> None:
    name = "h2tune+experimental.mask=leading+train.local_steps=2"
    rows = [Range(n, 0.1, 0.0, 0.3, theme.CLEAR, "note") for n in (name, "local")]
    svg = ranges("k", "t", "d", rows, axes.linear("points", [0, 0.3]))
    lines = [e.text for e in elements(svg) if e.tag == "tspan"]
    assert lines == ["h2tune", "+experimental.mask=leading", "+train.local_steps=2"]
    assert "local" in [e.text for e in elements(svg) if e.tag == "text"]
