"""Rounds that are taken back and run again give what an uninterrupted run gives; the old ones are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

import h2tune
from h2tune.errors import H2TuneError
from h2tune.events import check_event, read_events


def federation(folder: Path, rounds: int = 5, **sections):
    small = {"llama": {"blocks": 1}, "bert": {"blocks": 1}}
    content = federations.federation(
        folder,
        train={"local_steps": 2},
        data={"train": 8, "test": 4},
        server={"rounds": rounds},
        options=small,
        **sections,
    )
    return federations.write(folder, content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three rounds: its file, its folder, and a function that returns a copy."""
    folder = tmp_path_factory.mktemp("whole")
    file = federation(folder, rounds=3)
    h2tune.run(file, out=folder / "run")
    return file, folder / "run"


def copy_of(run: Path, out: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, out))


def left(run: Path):
    """All tensors that a run leaves, without those set aside, and its events without times."""
    files = [f.relative_to(run) for f in run.rglob("*.safetensors")]
    files = [f for f in files if f.parts[0] != "taken-back" and not any(p.startswith(".") for p in f.parts)]
    tensors = {f"{f}:{n}": t for f in files for n, t in load_file(run / f).items()}
    events = federations.comparable(read_events(run / "events.jsonl"))
    return tensors, [e for e in events if e["event"] != "rounds_taken_back"]


def assert_same(run: Path, other: Path) -> None:
    (tensors, events), (expected, logged) = left(run), left(other)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[n], expected[n]) for n in expected)
    assert events == logged


@pytest.mark.parametrize("number", [0, 1, 2])
def test_rounds_that_are_taken_back_and_run_again_give_the_same_to_the_bit(finished, tmp_path, number):
    file, run = finished
    copy = copy_of(run, tmp_path / "run")
    before = (copy / "events.jsonl").read_text().splitlines()
    result = h2tune.run(file, out=copy, from_round=number)
    assert_same(copy, run)
    assert result.table == h2tune.run(file, out=run, resume=True).table
    aside = copy / "taken-back" / "0001"
    assert (aside / f"server/round-{number + 1:04d}/state.safetensors").exists()
    assert (aside / f"clients/one/state/round-{number:04d}/private.safetensors").exists()
    assert (aside / "clients/one/lora/adapter_model.safetensors").exists()
    after = (copy / "events.jsonl").read_text().splitlines()
    assert after[: len(before)] == before  # the log is only added to
    said = [e for e in map(json.loads, after) if e["event"] == "rounds_taken_back"]
    assert [(e["round"], e["rounds"], e["folder"]) for e in said] == [(number, 3, "taken-back/0001")]
    check_event(said[0])
    assert "taken back and run again" in (copy / "report.html").read_text()


def test_rounds_can_be_taken_back_more_than_once(finished, tmp_path):
    file, run = finished
    copy = copy_of(run, tmp_path / "run")
    h2tune.run(file, out=copy, from_round=2)
    h2tune.run(file, out=copy, from_round=1)
    assert_same(copy, run)
    assert (copy / "taken-back" / "0002" / "server/round-0002").exists()


def test_a_robust_rule_may_be_chosen_for_the_rounds_that_are_run_again(finished, tmp_path):
    file, run = finished
    copy = copy_of(run, tmp_path / "run")
    robust = ["server.aggregation=median", "server.hostile=0"]
    with pytest.raises(H2TuneError, match=r"server\.aggregation"):
        h2tune.run(file, overrides=robust, out=copy, resume=True)
    h2tune.run(file, overrides=robust, out=copy, from_round=2)
    rules = [e.get("aggregation") for e in read_events(copy / "events.jsonl") if e["event"] == "aggregated"]
    assert rules == [None, None, "median"]
    assert left(copy)[0]["server/round-0002/state.safetensors:shared"].equal(
        left(run)[0]["server/round-0002/state.safetensors:shared"]
    )


def test_how_far_a_run_can_go_back_is_said_and_nothing_changes(tmp_path):
    file = federation(tmp_path, rounds=5)
    h2tune.run(file, out=tmp_path / "run")
    before = left(tmp_path / "run")
    with pytest.raises(H2TuneError, match=r"'one' keeps its last 3 rounds.*round 2.*0 or 1 or 3 or 4"):
        h2tune.run(file, out=tmp_path / "run", from_round=2)
    with pytest.raises(H2TuneError, match="no round 5 to take back; 5 were begun"):
        h2tune.run(file, out=tmp_path / "run", from_round=5)
    after = left(tmp_path / "run")
    assert after[1] == before[1] and after[0].keys() == before[0].keys()
    assert not (tmp_path / "run" / "last-unit.jsonl").exists()


def test_rounds_with_noise_are_not_taken_back(finished, tmp_path):
    file, run = finished
    with pytest.raises(H2TuneError, match="their ε is spent"):
        h2tune.run(file, overrides=["privacy.noise=server"], out=copy_of(run, tmp_path / "run"), from_round=1)


class Crash(BaseException):
    """Not an Exception, so that nothing in the product catches it."""


def test_a_crash_at_any_write_of_taking_back_is_completed_by_the_next_start(finished, tmp_path, monkeypatch):
    from h2tune.federation.run_store import RunStore
    from h2tune.federation.take_back import complete, take_back

    _, run = finished

    def taken_back(folder: Path, crash_at: int) -> int:
        """Take a round back, crash at a write and complete it; return the number of writes."""
        writes, store = 0, RunStore(folder, resume=True)
        with monkeypatch.context() as patch:

            def before(function):
                def wrapped(*arguments, **named):
                    nonlocal writes
                    writes += 1
                    if writes == crash_at:
                        raise Crash
                    return function(*arguments, **named)

                return wrapped

            for owner, name in (
                (os, "fsync"),
                (Path, "replace"),
                (Path, "write_bytes"),
                (Path, "write_text"),
            ):
                patch.setattr(owner, name, before(getattr(owner, name)))
            try:
                take_back(store, 1)
            except Crash:
                store._lock.close()  # as a kill does
            else:
                store.close()
        store = RunStore(folder, resume=True)
        complete(store)
        if not (folder / "taken-back" / "0001").exists():  # it crashed before anything was decided
            take_back(store, 1)
        store.close()
        return writes

    whole = copy_of(run, tmp_path / "whole")
    count = taken_back(whole, 0)
    expected = left(whole), sorted(str(f.relative_to(whole)) for f in whole.rglob("*.safetensors"))
    assert count > 10
    for at in range(1, count + 1):
        folder = copy_of(run, tmp_path / f"run-{at}")
        taken_back(folder, at)
        assert left(folder)[1] == expected[0][1], at
        assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*.safetensors")) == expected[1], at
