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

from h2tune.report.events import view
from h2tune.report.heat import LEVELS, level
from h2tune.report.html import render
from h2tune.report.svg import linear_axis, log_axis

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**400), 10**400)
ODD = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@functools.cache
def typical() -> str:
    return json.dumps(with_comparison(with_problems(make_events(rounds=2, clients=2, steps=2))))


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
    html = render(view(copy.deepcopy(events)))
    html.encode()
    HTMLParser().feed(html)
    for svg in html.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + svg[: svg.index("</svg>")] + "</svg>")


MEDIUM = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) >= 1e-100)


@given(st.lists(MEDIUM, max_size=6))
def test_linear_axes_hold_all_values_on_few_ticks(values: list[float]) -> None:
    axis = linear_axis("", values)
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= v <= axis.high + slack for v in values)
    assert 1 <= len(axis.ticks) <= 12
    assert all(0 <= axis.at(v, 0, 1) <= 1 for v in values)


@given(st.lists(MEDIUM.map(abs), max_size=6))
def test_log_axes_keep_order(values: list[float]) -> None:
    axis = log_axis("", values)
    places = [axis.at(v, 0, 1) for v in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


@given(st.floats(), st.floats(0, 1e100))
def test_colours_exist(value: float, high: float) -> None:
    assert 0 <= level(value, high) <= LEVELS
