"""A rule for T, a strategy, rows and a scorer of the user's own, from a federation file to a finished run."""

from __future__ import annotations

import sys

import pytest
import torch
from helpers import federations

from h2tune.compare import compare
from h2tune.config import load, load_resolved
from h2tune.errors import H2TuneError
from h2tune.flower.load import read_settings
from h2tune.runs.inspect import inspect
from h2tune.runs.results import evaluate_run
from h2tune.runs.run import run

CODE = """
import torch
from h2tune.baselines import build as baseline

def largest(increments, coverages, weights):
    assert increments.shape == coverages.shape and len(weights) == len(increments)
    which = increments.abs().argmax(0, keepdim=True)
    return increments.gather(0, which)[0]

def shapeless(increments, coverages, weights):
    return increments

def infinite(increments, coverages, weights):
    return increments.sum(0) / 0

def fedit(enrolments, **settings):
    return baseline("fedit", enrolments, **settings)

def nothing(enrolments, **settings):
    return None

def rows():
    for a in ("good", "bad", "great", "poor", "fine", "dull"):
        for b in ("the", "a", "film", "book", "game", "news"):
            yield {"words": f"{b} {a}", "label": "yes" if a in ("good", "great", "fine") else "no"}

def strings():
    return ["text"]

def half(output, answer):
    assert isinstance(output, str) and answer.strip() in ("yes", "no")
    return 0.5

def two(output, answer):
    return 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_parts.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("own_parts", None)


def test_a_rule_of_ones_own_moves_t(folder):
    content = federations.federation(folder, server={"aggregation": "own_parts:largest"})
    ran = run(federations.write(folder, content), out=folder / "run", strict=True)
    assert all(event["change"] > 0 for event in ran.events if event["event"] == "aggregated")
    mean = federations.federation(folder)
    other = run(federations.write(folder, mean), out=folder / "mean")
    assert aggregates(ran) != aggregates(other)
    resolved = load_resolved(folder / "run" / "config.toml")
    assert resolved.server.aggregation == f"{folder}/own_parts.py:largest"


def aggregates(run):
    return [event["sha256"] for event in run.events if event["event"] == "aggregated"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapeless", "not a tensor of the shape"),
        ("infinite", "not finite"),
        ("missing", "has no 'missing'"),
        ("torch.nn.functional", "no function"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(folder, name, message):
    content = federations.federation(folder, server={"aggregation": f"own_parts:{name}"})
    with pytest.raises(H2TuneError, match=message):
        run(federations.write(folder, content), out=folder / "run")


def test_a_rule_goes_through_a_whole_block_that_nobody_covers_unchanged():
    from h2tune.federation.h2tune.own_rule import own_step

    learned, coverage = torch.ones(2, 3, 1, 2, 2), torch.ones(2, 3, 1, 2, 2)
    coverage[:, 1] = 0
    step = own_step(lambda n, c, w: n.sum(0), learned, coverage, torch.ones(2))
    assert step[1].abs().max() == 0 and step[0].min() == 2


@pytest.mark.parametrize(
    "server",
    [{"hostile": 1}, {"secure_aggregation": True}, {"strategy": "fedit"}],
)
def test_a_rule_does_not_go_with_what_needs_h2tunes_own(folder, server):
    clients = [(name, "llama", 4) for name in ("one", "two", "three")]
    content = federations.federation(folder, clients, server={"aggregation": "own_parts:largest", **server})
    with pytest.raises(H2TuneError):
        load(federations.write(folder, content))


def test_a_strategy_of_ones_own_runs_and_is_compared(folder):
    clients = [("one", "llama", 4), ("two", "llama", 4)]
    content = federations.federation(folder, clients, server={"rounds": 1}, train={"local_steps": 1})
    file = federations.write(folder, content)
    compared = compare(file, ["fedit", "own_parts:fedit"], seeds=1, out=folder / "compared")
    rows = {(row.method, row.client): row.mean for row in compared.rows()}
    assert rows["fedit", ""] == rows["own_parts:fedit", ""] and not compared.problems


def test_what_is_no_strategy_is_refused(folder):
    content = federations.federation(folder, server={"strategy": "own_parts:nothing"})
    with pytest.raises(H2TuneError, match="'own_parts:nothing' makes NoneType, not a Strategy"):
        inspect(load(federations.write(folder, content)))


def test_rows_and_a_scorer_of_ones_own(folder):
    content = federations.federation(folder, [("one", "llama", 4)], server={"rounds": 1})
    content["data"] = {"test": 5}
    content["client"][0]["task"] = {
        "file": "own_parts:rows",
        "prompt": "text : {words} answer :",
        "answer": "label",
        "scorer": "own_parts:half",
        "max_new_tokens": 2,
    }
    file = federations.write(folder, content)
    inspect(load(file))
    ran = run(file, out=folder / "run")
    assert ran.events[0]["clients"][0]["task"] == "rows"
    assert ran.events[0]["clients"][0]["examples"] == {"train": 29, "validation": 0, "test": 5}
    assert [event["accuracy"] for event in ran.events if event["event"] == "evaluated"] == [0.5, 0.5]
    sys.modules.pop("own_parts")  # a new process, which starts elsewhere
    assert [score.accuracy for _, score in evaluate_run(folder / "run", (), "test")] == [0.5]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"file": "own_parts:strings"}, "own_parts:strings, row 1: is str, not a row"),
        ({"file": "own_parts:torch"}, "own_parts:torch: is no function"),
        (
            {"file": "own_parts:rows", "scorer": "own_parts:torch"},
            "task.scorer: 'own_parts:torch' is no function",
        ),
        ({"file": "own_parts:rows", "scorer": "own_parts:tow"}, "did you mean 'two'"),
        ({"file": "own_parts:rows", "prompt": "{text}"}, "own_parts:rows, row 1: no field 'text'"),
    ],
)
def test_rows_and_scorers_that_cannot_work_are_refused_before_training(folder, task, message):
    content = federations.federation(folder, [("one", "llama", 4)])
    content["client"][0]["task"] = {"prompt": "text : {words} answer :", "answer": "label"} | task
    with pytest.raises(H2TuneError, match=message):
        inspect(load(federations.write(folder, content)))


def test_a_score_beyond_one_is_refused(folder):
    from h2tune.scoring.scorers import scorer_of

    with pytest.raises(H2TuneError, match="'own_parts:two' returned 2"):
        scorer_of(f"{folder}/own_parts.py:two")("yes", "yes")


@pytest.mark.parametrize("server", [{"aggregation": "os:abort"}, {"strategy": "os:abort"}])
def test_settings_of_another_party_name_no_code(server):
    import json

    settings = {"name": "tiny", "server": {"shared_rank": 4, "slots": 2, **server}}
    with pytest.raises(H2TuneError, match="the coordinator's settings"):
        read_settings(json.dumps(settings))


def test_to_read_a_file_runs_nothing(folder):
    (folder / "own_alarm.py").write_text("raise SystemExit('it ran')")
    content = federations.federation(folder, server={"aggregation": "own_alarm:rule"})
    content["client"][0]["task"] |= {"file": "own_alarm:rows"}
    assert load(federations.write(folder, content)).server.aggregation.endswith("own_alarm.py:rule")
