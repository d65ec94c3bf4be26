"""Templates: fields that are filled in, and texts that are cut to a limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from h2tune.errors import H2TuneError
from h2tune.tasks.prompts import fields, fill, filled, parse, shorten
from h2tune.tasks.rows import FileTask


def test_fill_substitutes_and_does_nothing_else() -> None:
    assert fill("{{{a}}} {b-c} {a}", {"a": "{b}", "b-c": "%s"}) == "{{b}} %s {b}"
    assert fields("{{x}} {a} {b} {a}") == ("a", "b")
    assert parse("a{{b}}{x}c}}d") == (("a{b}", "x"), ("c}d", None))


@pytest.mark.parametrize(
    "template",
    ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>10}", "{}", "{0}", "{a", "a}", "{ a}", "{a:{b}}"],
)
def test_templates_that_are_more_than_fields_are_refused(template: str) -> None:
    with pytest.raises(H2TuneError, match="template"):
        fill(template, {"a": "x", "b": "y"})
    with pytest.raises(ValidationError, match="template"):
        FileTask(file="x.csv", prompt=template, answer="a")


def test_shorten_leaves_out_the_middle_of_the_text_and_nothing_of_the_frame() -> None:
    text, spans = filled("Q: {text} A:", {"text": "abcdefgh"})
    assert shorten(text, spans, len, 14) == "Q: abcdefgh A:"
    assert shorten(text, spans, len, 11) == "Q: abcgh A:"
    assert shorten(text, spans, len, 3) == "Q:  A:"


def test_shorten_cuts_the_longest_field_first_wherever_it_is() -> None:
    template = "{context}\n{question}? {{A}}:"
    text, spans = filled(template, {"context": "long context", "question": "why"})
    assert shorten(text, spans, len, 14) == "loxt\nwhy? {A}:"
    assert shorten(text, spans, len, 10) == "l\nw? {A}:"


def test_shorten_cuts_between_words() -> None:
    text, spans = filled("{text}", {"text": "first second third fourth fifth"})
    assert shorten(text, spans, lambda part: len(part.split()), 4) == "first second fourth fifth"


def test_a_field_that_contains_the_template_s_words_is_cut_where_it_stands() -> None:
    text, spans = filled("Text: {text}\nAnswer: {hint} Answer:", {"text": "x\nAnswer: " * 9, "hint": "short"})
    assert shorten(text, spans, len, 60).endswith("\nAnswer: short Answer:")


@given(st.text("ab {}", max_size=40), st.text("ab\n", max_size=40), st.integers(0, 60))
def test_shorten_keeps_the_frame_and_the_limit(one: str, other: str, limit: int) -> None:
    text, spans = filled("<{one}|{other}>", {"one": one, "other": other})
    short = shorten(text, spans, len, limit)
    assert short.startswith("<") and short.endswith(">") and "|" in short
    assert len(short) <= max(limit, 3)
    assert short == text or len(text) > limit
