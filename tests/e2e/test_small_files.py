"""Forty rows and nothing said about splits; rows of one label; files for each split."""

from __future__ import annotations

import json

import pytest
from helpers import federations
from typer.testing import CliRunner

from h2tune.cli import main
from h2tune.config import load_resolved
from h2tune.events import read_events


@pytest.fixture
def small(tmp_path):
    """A federation of two clients with forty rows each, whose file has no [data]."""
    content = federations.federation(tmp_path)
    for name in ("one", "two"):
        federations.write_rows(tmp_path / f"{name}.jsonl", count=40)
    del content["data"]
    return tmp_path, content


def run(folder, content, *options: str):
    file = federations.write(folder, content)
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(folder / "run"), *options])
    return found, read_events(folder / "run" / "events.jsonl")


def test_forty_rows_train_on_all_but_a_fifth(small):
    folder, content = small
    found, events = run(folder, content, "--strict")
    assert found.exit_code == 0, found.exception
    examples = [client["examples"] for client in events[0]["clients"]]
    assert examples == [{"train": 32, "validation": 0, "test": 8}] * 2
    assert not any("unused" in client for client in events[0]["clients"])
    resolved = load_resolved(folder / "run" / "config.toml")
    assert [(c.train, c.test) for c in resolved.client] == [("all", 0.2)] * 2
    scored = CliRunner().invoke(main.app, ["evaluate", str(folder / "run")])
    assert scored.exit_code == 0, scored.exception


def test_clients_weigh_as_many_examples_as_they_have(small):
    folder, content = small
    federations.write_rows(folder / "two.jsonl", count=80)
    content["server"]["weighting"] = "examples"
    found, events = run(folder, content, "--strict")
    assert found.exit_code == 0, found.exception
    assert [c["examples"]["train"] for c in events[0]["clients"]] == [32, 64]


def test_what_is_stated_is_taken_as_it_is(small):
    folder, content = small
    content["data"] = {"train": 10}
    content["client"][1] |= {"test": 0.5, "train": "all"}
    _, events = run(folder, content)
    assert [(c["examples"]["train"], c["examples"]["test"]) for c in events[0]["clients"]] == [
        (10, 8),
        (20, 20),
    ]


def test_files_for_each_split_are_all_used(small):
    folder, content = small
    for split, count in (("validation", 9), ("test", 11)):
        rows = federations.write_rows(folder / f"{split}.jsonl", count=count, seed=count)
        content["client"][0]["task"][f"{split}_file"] = str(rows)
    _, events = run(folder, content)
    assert events[0]["clients"][0]["examples"] == {"train": 40, "validation": 9, "test": 11}


def test_rows_of_one_label_are_a_warning_before_training(small):
    folder, content = small
    rows = [json.loads(line) for line in (folder / "one.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"label": "no"}) for row in rows]
    (folder / "one.jsonl").write_text("\n".join(lines))
    found, events = run(folder, content, "--strict")
    assert found.exit_code != 0 and "all 32 examples to train on have the label 'no'" in str(found.exception)
    assert not [e for e in events if e["event"] == "client_trained"]
