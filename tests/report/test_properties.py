from __future__ import annotations

import copy
import functools
import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from helpers.report_events import make_events, with_comparison, with_problems
from hypothesis import given, settings
from hypothesis import strategies as st

from h2tune.report.charts import axes
from h2tune.report.page import render
from h2tune.report.view import build_view

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**400), 10**400)
ODD = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@functools.cache
def typical() -> str:
    return json.dumps(with_comparison(with_problems(make_events(rounds=2, clients=1, steps=2))))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all items below a value, at most two of each list."""
    found = []
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, item in items:
        found += [(*path, key), *places(item, (*path, key))]
    return found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_value_in_any_place_leaves_a_whole_page(data: st.DataObject) -> None:
    events = json.loads(typical())
    for _ in range(data.draw(st.integers(1, 4))):
        event = data.draw(st.sampled_from(events))
        path = data.draw(st.sampled_from([p for p in places(event) if p != ("event",)] or [("time",)]))
        holder = event
        for key in path[:-1]:
            holder = holder[key] if isinstance(holder, dict | list) else {}
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder.pop(path[-1], None)
        elif isinstance(holder, dict | list) and (isinstance(holder, dict) or path[-1] < len(holder)):
            holder[path[-1]] = data.draw(ODD)
    html = render(build_view(copy.deepcopy(events)))
    html.encode()
    HTMLParser().feed(html)
    for svg in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + svg[: svg.index("</svg>")] + "</svg>")


MEDIUM = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) >= 1e-100)


@given(st.lists(MEDIUM, max_size=6))
def test_linear_scales_hold_all_values_and_have_an_extent(values: list[float]) -> None:
    low, high = axes.linear("", values)["scale"]["domain"]
    assert low < high
    assert all(low <= v <= high for v in values)


@given(st.lists(MEDIUM.map(abs), max_size=6))
def test_log_scales_hold_all_positive_values_on_few_ticks(values: list[float]) -> None:
    scale = axes.log("", values)
    low, high = scale["scale"]["domain"]
    assert 0 < low < high
    assert all(low * (1 - 1e-9) <= v <= high * (1 + 1e-9) for v in values if v > 0)
    assert 2 <= len(scale["axis"]["values"]) <= 8


@given(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(2, 9))
def test_counts_have_few_whole_ticks_in_range(low: int, more: int, ticks: int) -> None:
    values = axes.count("", low, low + more, ticks=ticks)["axis"]["values"]
    assert all(low <= value <= low + more and value == int(value) for value in values)
    assert 1 <= len(values) <= ticks + 2
