"""A federation from keyword arguments, a dict and a file, with objects in place of names."""

from __future__ import annotations

import builtins
import sys

import pytest
import torch
from helpers import federations

import h2tune
from h2tune import own_code
from h2tune.config import FederationConfig, load


def largest(increments, coverages, weights):
    return increments.gather(0, increments.abs().argmax(0, keepdim=True))[0]


def rows():
    return [
        {"words": f"{a} {b}", "label": "yes"}
        for a in ("good", "bad", "fine")
        for b in ("film", "book", "game")
    ]


def half(output, answer):
    return 0.5


class Heard(h2tune.Monitor):
    events: list[str] = []  # noqa: RUF012 - of all objects

    def on_event(self, event):
        self.events.append(event["event"])


@pytest.fixture
def content(tmp_path):
    return federations.federation(tmp_path, server={"rounds": 1}, train={"local_steps": 2})


def test_the_same_from_a_file_a_dict_and_keywords(tmp_path, content, monkeypatch):
    file = federations.write(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    content["client"][0]["model"] = "./models/llama"  # from the working directory
    expected = load(file)
    for federation in (h2tune.Federation(file), h2tune.Federation(content), h2tune.Federation(**content)):
        assert isinstance(federation.config, FederationConfig) and federation.config == expected
    assert repr(h2tune.Federation(content)) == "Federation('tiny', clients: one, two)"
    assert h2tune.Federation(file, seed=3).config.seed == 3


def test_a_wrong_key_is_refused_as_in_a_file(content):
    with pytest.raises(
        h2tune.H2TuneError, match=r"Federation: unknown key 'server.round' \(did you mean 'rounds'"
    ):
        h2tune.Federation(content, server={"round": 3})
    with pytest.raises(h2tune.H2TuneError, match=r"server.rounds: must be an integer"):
        h2tune.Federation(content, server={"rounds": "three"})


def test_objects_stand_where_a_file_has_names(tmp_path, content):
    content["server"]["aggregation"] = largest
    content |= {"monitors": [Heard], "data": {"train": 6, "test": 3}}
    content["client"][0] |= {
        "task": {"file": rows, "prompt": "{words}", "answer": "label", "scorer": half, "max_new_tokens": 2}
    }
    federation = h2tune.Federation(content)
    assert federation.inspect().clients[0]["task"] == "rows"
    run = federation.run(out=tmp_path / "run", progress=False)
    assert Heard.events == [event["event"] for event in run.events]
    assert [row["federated"] for row in run.table if row["client"] == "one"] == [0.5]
    stated = (tmp_path / "run" / "config.toml").read_text()
    assert ":largest" in stated and ":rows" in stated and ":half" in stated
    again = h2tune.run(federation, out=tmp_path / "run", resume=True)
    assert again.table == run.table


def test_h2tune_run_takes_one_with_overrides(tmp_path, content):
    federation = h2tune.Federation(content)
    run = h2tune.run(federation, overrides=["seed=5"], out=tmp_path / "run")
    assert run.events[0]["seed"] == 5 and federation.config.seed == 0


def test_it_compares_methods_and_strategies_of_ones_own(tmp_path, content):
    content["client"][1] |= {"model": content["client"][0]["model"], "rank": 4}
    compared = h2tune.Federation(content).compare(["local", fedit], seeds=1, out=tmp_path / "compared")
    assert {row.method for row in compared.rows()} == {
        "local",
        own_code.short(own_code.reference_of(fedit, "")),
    }
    assert not compared.problems


def fedit(enrolments, **settings):
    from h2tune import baselines

    return baselines.build("fedit", enrolments, **settings)


def test_it_shows_its_progress(tmp_path, content, capsys):
    h2tune.Federation(content).run(out=tmp_path / "run")
    shown = capsys.readouterr()
    assert "round 1 aggregated · 2 clients" in shown.out and "loss" in shown.err


def test_events_as_a_frame(tmp_path, content, monkeypatch):
    pandas = pytest.importorskip("pandas")
    run = h2tune.run(h2tune.Federation(content), out=tmp_path / "run")
    frame = run.frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(run.events)
    scores = frame[frame.event == "evaluated"].pivot(index="round", columns="client", values="accuracy")
    assert list(scores.columns) == ["one", "two"] and list(scores.index) == [-1, 0]
    monkeypatch.delitem(sys.modules, "pandas")
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(h2tune.H2TuneError, match="pip install pandas"):
        run.frame()


def test_torch_is_only_used_by_the_rule():
    assert largest(torch.tensor([[1.0, -3.0], [2.0, 1.0]]), None, None).tolist() == [2.0, -3.0]
