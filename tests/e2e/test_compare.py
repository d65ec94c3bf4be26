"""A comparison on tiny models: interrupted, resumed, and computed from the events of its runs."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import federations, processes

from h2tune.compare import compare
from h2tune.errors import H2TuneError
from h2tune.events import read_events

pytestmark = pytest.mark.filterwarnings("ignore:Adapter 'default'")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    content = federations.federation(
        folder,
        train={"local_steps": 2},
        data={"train": 16, "test": 20},
        experimental={"size_weight": 0.0, "evaluate_rounds": "last"},
        options={"llama": {"blocks": 1}, "bert": {"blocks": 1}},
    )
    return federations.write(folder, content)


@pytest.fixture(scope="module")
def stopped(file, tmp_path_factory) -> Path:
    """A comparison that was killed after its first run."""
    out = tmp_path_factory.mktemp("stopped") / "compare"
    arguments = ("compare", str(file), "--methods", "local,h2tune", "--seeds", "2", "--out", str(out))
    text = out.parent / "text"
    process = processes.start(arguments, text)
    deadline = time.time() + 200
    while not (out / "h2tune" / "seed-0" / "events.jsonl").exists():
        assert process.is_alive(), text.with_suffix(".err").read_text()
        assert time.time() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    return out


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == kind]


def test_a_stopped_comparison_resumes_and_reports_what_its_runs_recorded(file, stopped):
    first = (stopped / "local" / "seed-0" / "events.jsonl").read_bytes()
    found = compare(file, ["local", "h2tune"], seeds=2, out=stopped)
    assert (stopped / "local" / "seed-0" / "events.jsonl").read_bytes() == first
    with (stopped / "comparison.csv").open() as stream:
        rows = {(row["method"], row["client"]): row for row in csv.DictReader(stream)}
    assert len(rows) == 6 and not found.problems
    accuracy = {
        (method, seed, e["client"]): e["accuracy"]
        for method in ("local", "h2tune")
        for seed in (0, 1)
        for e in events(stopped / method / f"seed-{seed}", "evaluated")
    }
    assert len(accuracy) == 8  # scored once each: in the last round
    gaps = [
        sum(accuracy["h2tune", s, c] - accuracy["local", s, c] for c in ("one", "two")) / 2 for s in (0, 1)
    ]
    assert float(rows["h2tune", ""]["difference"]) == pytest.approx(sum(gaps) / 2)
    sent = [
        e["bytes_up"] for e in events(stopped / "h2tune" / "seed-0", "client_trained") if e["client"] == "one"
    ]
    assert float(rows["h2tune", "one"]["bytes_up"]) == sum(sent) > 0
    [compared] = events(stopped, "compared")
    assert compared["reference"] == "local" and compared["seeds"] == [0, 1]
    assert "Comparison of methods" in (stopped / "report.html").read_text()
    assert "| h2tune |" in (stopped / "comparison.md").read_text()
    _paired(stopped)
    _alone(file, stopped)


def _paired(stopped: Path) -> None:
    """The first step of every method sees the same batch through the same untouched model."""
    for seed in (0, 1):
        losses = [
            [e["losses"][0]["loss"] for e in events(stopped / method / f"seed-{seed}", "client_trained")][:2]
            for method in ("local", "h2tune")
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def _alone(file: Path, stopped: Path) -> None:
    """Training alone is added to finished runs of h2tune, which are not repeated."""
    before = [events(stopped / "h2tune" / f"seed-{s}", "client_trained") for s in (0, 1)]
    found = compare(file, ["local", "h2tune", "h2tune-alone"], seeds=2, out=stopped)
    after = [events(stopped / "h2tune" / f"seed-{s}", "client_trained") for s in (0, 1)]
    for old, new in zip(before, after, strict=True):
        assert new[: len(old)] == old and {e["stage"] for e in new[len(old) :]} == {"alone"}
    alone = [row for row in found.rows() if row.method == "h2tune-alone"]
    assert [row.bytes_up for row in alone] == [0, 0, 0] and all(row.seeds == 2 for row in alone)
    logs = {p: p.stat().st_mtime_ns for p in stopped.glob("*/seed-*/events.jsonl")}
    assert len(logs) == 4
    compare(file, ["h2tune", "local"], seeds=2, out=stopped)
    assert logs == {p: p.stat().st_mtime_ns for p in logs}
    with pytest.raises(H2TuneError, match=r"another train\.local_steps"):
        compare(file, ["local"], seeds=2, out=stopped, overrides=["train.local_steps=3"])


def test_a_method_that_fails_is_listed_and_the_others_go_on(file, tmp_path):
    methods = ["local", "local+data.test=1000", "fedit"]
    found = compare(file, methods, seeds=1, out=tmp_path, overrides=["server.rounds=1"])
    assert [row.method for row in found.rows()] == ["local", "fedit"] * 3
    # no two clients have one model: fedit is local here, and is not trained again
    assert not (tmp_path / "fedit").exists() and {row.difference for row in found.rows()} == {None, 0.0}
    assert "same as local" in (tmp_path / "comparison.md").read_text()
    [(method, seed, reason)] = found.problems
    assert (method, seed) == ("local+data.test=1000", 0) and "1,000 test examples" in reason
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert event["problems"] == [{"method": method, "seed": 0, "reason": reason}]
    assert "One seed" in (tmp_path / "comparison.md").read_text()
