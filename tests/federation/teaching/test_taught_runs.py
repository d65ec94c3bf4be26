"""The exchange before the first round, through real runs of tiny models."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from helpers.steps import Steps
from helpers.taught import content, lessons, shared
from safetensors.torch import load_file

import h2tune
from h2tune.config import load
from h2tune.events import check_event
from h2tune.runs.inspect import inspect

METHODS = {"h2tune": "directions", "self-training": "own", "fedmd": "predictions", "afl": "moments"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    file = federations.write(folder, content(folder))
    return file, h2tune.run(file, out=folder / "run", strict=True)


def test_each_client_has_a_lesson_and_trains_on_it(finished):
    _, run = finished
    found = lessons(run)
    assert [e["client"] for e in found] == ["one", "three", "two"]
    for event in found:
        check_event(event)
        assert event["teaching"] == "directions" and len(event["weights"]) == 2
        assert event["bytes_up"] == event["bytes_down"] == 64 * 2 * 4
        assert [t["name"] for t in event["sent"]] == ["direction"]
        assert 0.3 < event["covered"] < 3
    assert any(e["taken"] for e in found)


def test_inspect_predicts_the_bytes_before_the_first_round(finished):
    file, run = finished
    for client in inspect(load(file)).clients:
        once = [e for e in run.events if e["event"] in ("basis_agreed", "lesson_prepared")]
        mine = [e for e in once if e["client"] == client["name"]]
        assert client["basis_bytes"] == [sum(e[key] for e in mine) for key in ("bytes_up", "bytes_down")]


def test_a_run_with_lessons_repeats_and_resumes_to_the_bit(finished, tmp_path):
    file, run = finished
    again = h2tune.run(file, out=tmp_path / "again")
    assert torch.equal(shared(again.folder), shared(run.folder))
    h2tune.run(file, out=tmp_path / "part", overrides=["server.rounds=1"])
    whole = h2tune.run(file, out=tmp_path / "part", resume=True)
    assert [federations.comparable([e]) for e in lessons(whole)] == [
        federations.comparable([e]) for e in lessons(run)
    ]


def test_lessons_change_what_is_trained_and_nothing_is_shared_without(finished, tmp_path):
    file, run = finished
    without = h2tune.run(file, out=tmp_path / "run", overrides=["basis.consensus=false"])
    assert not lessons(without)
    assert not torch.equal(shared(without.folder), shared(run.folder))


def test_a_decoder_that_answers_in_words_speaks_and_takes_no_teacher(finished):
    _, run = finished
    by_name = {e["client"]: e for e in lessons(run)}
    assert not by_name["three"]["taken"] and "answers in words" in by_name["three"]["reason"]
    assert by_name["three"]["sent"] and "three" in by_name["two"]["weights"] and by_name["two"]["taken"]


def test_a_decoder_with_a_head_takes_a_teacher(tmp_path):
    found = content(tmp_path)
    found["client"][2]["head"] = "classifier"
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run", overrides=["server.rounds=1"])
    (event,) = [e for e in lessons(run) if e["client"] == "three"]
    (trained,) = [e for e in run.events if e["event"] == "client_trained" and e["client"] == "three"]
    assert (
        event["taken"] and trained["losses"] and not [e for e in run.events if e["event"] == "client_failed"]
    )


def test_without_increments_directions_alone_travel_and_rounds_do_not_matter(tmp_path):
    found = content(tmp_path)
    found["experimental"] |= {"increments": "none", "start": "labels", "start_norm": 0.5}
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", strict=True)
    trained = [e for e in run.events if e["event"] == "client_trained"]
    assert len(trained) == 6 and all(e["bytes_up"] == e["bytes_down"] == 0 and not e["sent"] for e in trained)
    assert any(e["taken"] for e in lessons(run)) and not shared(run.folder).any()
    assert any(e["moved"].get("delta", 0) > 0 for e in trained if e["round"] == 1)
    before, after = (
        load_file(run.folder / f"clients/one/state/round-{number:04d}/private.safetensors")
        for number in (0, 1)
    )
    deltas = [name for name in after if "h2tune_delta" in name]
    assert deltas and all(before[name].any() for name in deltas)
    index = [name for name in after if "h2tune_index" in name]
    assert all(torch.equal(before[name], after[name]) for name in index)
    h2tune.run(file, out=tmp_path / "part", overrides=["server.rounds=1"])
    resumed = h2tune.run(file, out=tmp_path / "part", resume=True)
    again = load_file(resumed.folder / "clients/one/state/round-0001/private.safetensors")
    assert all(torch.equal(after[name], again[name]) for name in after)


@pytest.mark.parametrize("strategy", [m for m in METHODS if m != "h2tune"])
def test_yardsticks_run_by_name(tmp_path, strategy):
    run = h2tune.run(federations.write(tmp_path, content(tmp_path, strategy)), out=tmp_path / "run")
    assert {e["teaching"] for e in lessons(run)} == {METHODS[strategy]}
    assert all(row["federated"] is not None for row in run.table)


@pytest.mark.parametrize("strategy", METHODS)
def test_every_exchange_has_room_for_a_client_without_labels(tmp_path, strategy):
    found = content(tmp_path, strategy)
    found["client"][1]["train"] = 0
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", overrides=["server.rounds=1"])
    assert not [e for e in run.events if e["event"] == "client_failed"]
    (event,) = [e for e in lessons(run) if e["client"] == "two"]
    (client,) = [c for c in inspect(load(file)).clients if c["name"] == "two"]
    before = [
        e for e in run.events if e["event"] in ("basis_agreed", "lesson_prepared") and e["client"] == "two"
    ]
    assert client["basis_bytes"] == [sum(e[key] for e in before) for key in ("bytes_up", "bytes_down")]
    taught = strategy != "self-training"  # which teaches by a client's own labels alone
    assert (event["taken"], event.get("untrained", False)) == (taught, not taught)


def test_pooled_trains_on_the_labels_of_all_that_have_the_same(tmp_path):
    run = h2tune.run(federations.write(tmp_path, content(tmp_path, "pooled")), out=tmp_path / "run")
    (started,) = [e for e in run.events if e["event"] == "run_started"]
    assert [c["examples"]["train"] for c in started["clients"]] == [120, 120, 120]


def test_label_names_decide_whatever_their_order(tmp_path):
    turned = content(tmp_path)
    turned["client"][1]["task"]["labels"] = ["no", "yes"]
    plain = content(tmp_path)
    runs = [
        h2tune.run(federations.write(tmp_path, c), out=tmp_path / name)
        for name, c in (("turned", turned), ("plain", plain))
    ]
    one, other = (
        load_file(run.folder / "clients/two/knowledge/sent.safetensors")["direction"] for run in runs
    )
    assert torch.allclose(one, other, atol=1e-5)
    targets = [load_file(run.folder / "clients/one/lesson/lesson.safetensors")["targets"] for run in runs]
    assert torch.allclose(targets[0], targets[1], atol=1e-4)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("labels", [128, 20], ids=["as the teacher", "more than it"])
def test_the_steps_of_a_run_are_known_when_all_have_decided(tmp_path, labels, alone):
    """One client is taught, one is a decoder that takes no teacher, and one has no labels to train alone on."""
    steps = Steps()
    found = content(tmp_path, train={"local_steps": 3, "batch_size": 8})
    found["client"][1]["train"] = 0
    found["experimental"] |= {"alone": alone, "teacher_labels": labels}
    h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run", monitors=[steps])
    assert len(steps.totals) == 2
    (first, _), (last, done) = steps.totals
    assert last == steps.done != first and done == 0
