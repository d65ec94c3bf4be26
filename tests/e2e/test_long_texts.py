"""Texts that `max_length` cuts: refused, warned of, or left alone, before anything is trained."""

from __future__ import annotations

import json

import pytest
from helpers import federations
from typer.testing import CliRunner

from h2tune.cli import main
from h2tune.errors import H2TuneError
from h2tune.events import read_events

LONG = "the film " * 20 + ": "


@pytest.fixture
def sound(tmp_path):
    return tmp_path, federations.federation(tmp_path)


def run(folder, content, *options: str):
    file = federations.write(folder, content)
    return CliRunner().invoke(main.app, ["run", str(file), "--out", str(folder / "run"), *options])


def with_task(content, client: int, **changes):
    content["client"][client]["task"] |= changes
    return content


def test_a_template_that_leaves_nothing_of_the_texts_is_refused(sound):
    """All prompts would be alike, and a model that always gives one answer would be scored."""
    folder, content = sound
    found = run(folder, with_task(content, 0, prompt=LONG + "{words} answer :", max_length=40))
    assert isinstance(found.exception, H2TuneError)
    assert "client 'one'" in str(found.exception) and "nothing is left of 44 of 44 texts" in str(
        found.exception
    )
    assert not (folder / "run" / "clients").exists()


def test_an_encoder_that_would_read_special_tokens_alone_is_refused(sound):
    folder, content = sound
    found = run(folder, with_task(content, 1, max_length=1))
    assert "client 'two'" in str(found.exception) and "nothing is left of" in str(found.exception)
    assert not (folder / "run" / "clients").exists()


@pytest.mark.parametrize("client", [0, 1])
def test_many_texts_that_lose_more_than_half_are_a_warning_and_an_error_if_strict(sound, client):
    folder, content = sound
    content = with_task(content, client, max_length=6 if client == 0 else 3)
    assert run(folder, content).exit_code == 0
    warnings = [e for e in read_events(folder / "run" / "events.jsonl") if e.get("code") == "texts_cut"]
    assert [e["client"] for e in warnings] == [content["client"][client]["name"]]
    assert "of 44 texts lose more than half of their length" in warnings[0]["message"]
    again = run(folder, content, "--strict", "--out", str(folder / "strict"))
    assert "lose more than half" in str(again.exception)
    assert not (folder / "strict" / "clients" / "one" / "state").exists()


def test_a_few_long_texts_are_no_warning(sound):
    folder, content = sound
    rows = folder / "one.jsonl"
    lines = rows.read_text().splitlines()
    long = json.loads(lines[0])
    rows.write_text("\n".join([json.dumps(long | {"words": long["words"] * 20}), *lines[1:]]))
    content = with_task(content, 0, max_length=16)
    assert run(folder, content, "--strict").exit_code == 0
