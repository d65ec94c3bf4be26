"""The section on teachers: who is relevant to whom, and what each client decided."""

from __future__ import annotations

import re

import pytest
from helpers.report_events import make_events

from h2tune.report.sections import teaching
from h2tune.report.view import build_view

COSINES = {
    "films": {"feed": 0.5, "news": -0.2},
    "feed": {"films": 0.5, "news": 0.3},
    "news": {"films": -0.2, "feed": 0.3},
}


def lesson(client, **changes):
    event = {
        "event": "lesson_prepared", "client": client, "teaching": "directions", "sent": [], "received": [],
        "bytes_up": 512, "bytes_down": 512, "weights": {k: 2 * v for k, v in COSINES[client].items()},
        "cosines": COSINES[client], "taken": True, "own_loss": 0.61, "peers_loss": 0.52, "standard_error": 0.04,
        "own_right": 0.72, "peers_right": 0.81,
    }  # fmt: skip
    return event | changes


def section_of(*lessons):
    return teaching.sections(build_view([*make_events(), *lessons]))


def test_a_run_without_lessons_has_no_such_section():
    assert section_of() == []


def test_cosines_and_decisions_are_shown():
    (section,) = section_of(lesson("films"), lesson("feed"), lesson("news", taken=False))
    cosines, weights = section.figures
    assert re.findall(r">(\d) (\w+)<", cosines.svg) == [("1", "films"), ("2", "news"), ("3", "feed")]
    assert "Mean of all pairs with the same labels: 0.2; 1 pair below zero" in cosines.note.replace(
        "0.20", "0.2"
    )
    assert weights.scale[1] == "1.0" or weights.scale[1] == "1"
    decisions = {row[0]: row for row in section.tables[0].rows}
    assert decisions["news"][-1] == "declined" and decisions["films"][-1] == "taken"
    assert "81.0" in decisions["films"][2]


def test_a_client_that_takes_no_part_says_why():
    unable = lesson("news", taken=False, reason="its answers are free text", cosines={}, weights={})
    (section,) = section_of(lesson("films"), lesson("feed"), unable)
    assert {row[0]: row[-1] for row in section.tables[0].rows}["news"] == "its answers are free text"


@pytest.mark.parametrize("cosines", [{}, {"stranger": 1.0}, "none", None, {"feed": "x"}])
def test_what_is_not_as_it_should_be_is_left_out(cosines):
    broken = [lesson(name, cosines=cosines, weights=cosines, own_loss="much") for name in COSINES]
    (section,) = section_of(*broken)
    assert len(section.tables[0].rows) == 3
