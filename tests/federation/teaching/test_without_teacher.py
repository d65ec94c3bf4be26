"""Clients that take no teacher, and clients that have nothing but a teacher."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from helpers.taught import THREE, alone_in_its_labels, content, lessons, shared
from safetensors.torch import load_file

import h2tune
from h2tune import files
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.monitors.lines import lesson_line


def test_a_client_that_nobody_can_teach_trains_by_itself_in_every_round(tmp_path):
    """Whatever the others learned, and it has no part in G."""
    runs = []
    for seed in (0, 5):
        found = alone_in_its_labels(tmp_path)
        federations.write_rows(tmp_path / "one.jsonl", seed=seed)
        file = federations.write(tmp_path, found)
        runs.append(h2tune.run(file, out=tmp_path / f"run-{seed}", strict=True))
    path = "clients/three/state/round-0002/private.safetensors"
    one, other = (load_file(run.folder / path) for run in runs)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(*(shared(run.folder) for run in runs))
    trained = [e for e in runs[0].events if e["event"] == "client_trained" and e["client"] == "three"]
    assert all(e["moved"].get("delta", 0) == 0 for e in trained) and len(trained) == 3


def test_a_federation_in_which_nobody_can_be_taught_is_no_fault(tmp_path):
    found = alone_in_its_labels(tmp_path)
    found["client"] = found["client"][1:]
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run", strict=True)
    assert not any(e["taken"] for e in lessons(run))


def test_free_answers_take_no_part_and_say_why(tmp_path):
    found = content(tmp_path)
    del found["client"][2]["task"]["labels"]
    found["data"] = {"train": 12, "test": 4}
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")
    by_name = {e["client"]: e for e in lessons(run)}
    assert by_name["three"]["reason"] == "its answers are free text"
    assert not by_name["three"]["taken"] and by_name["three"]["bytes_up"] == 0


@pytest.mark.parametrize("public", [4, 2])
def test_a_client_that_nobody_can_teach_trains_as_local_does_on_as_many_rows(tmp_path, public):
    """To the bit, in every round: with `public` texts beside 4 rows, 4 + `public` rows of its own a step."""
    found = alone_in_its_labels(tmp_path)
    found["experimental"] |= {"public_batch": public, "head_start": "labels", "alternation": "step"}
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run", strict=True)
    steps = found["train"]["local_steps"] * (4 + public) // 4
    found["train"]["local_steps"], found["server"]["strategy"] = steps, "local"
    local = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "local")
    mine, alone = (
        [e["losses"] for e in each.events if e["event"] == "client_trained" and e["client"] == "three"]
        for each in (run, local)
    )
    assert [len(losses) for losses in mine] == [steps] * 3
    assert [[x["loss"] for x in losses] for losses in mine] == [
        [x["loss"] for x in losses] for losses in alone
    ]


def test_alone_has_as_many_rows_as_with_a_teacher_and_is_the_same_without(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARED", 0)
    found = alone_in_its_labels(tmp_path)
    found["server"]["rounds"], found["experimental"]["alone"] = 2, True
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run", strict=True)
    losses = {
        (e["client"], e["stage"], e["round"]): [x["loss"] for x in e["losses"]]
        for e in run.events
        if e["event"] == "client_trained"
    }
    assert all(losses["three", "alone", number] == losses["three", "trained", number] for number in (0, 1))
    assert len(losses["one", "alone", 0]) == 2 * len(
        losses["one", "trained", 0]
    )  # four public texts beside four
    by_name = {row["client"]: row for row in run.table}
    assert by_name["three"]["alone"] == by_name["three"]["federated"]
    first = [
        run.folder / f"clients/three/{kind}/round-0000/private.safetensors" for kind in ("state", "alone")
    ]
    assert first[0].samefile(first[1])  # on disk once


@pytest.mark.parametrize(("client", "sends"), [("two", False), ("three", True)])
def test_a_client_without_labels_is_taught(tmp_path, client, sends):
    found = content(tmp_path)
    found["data"] = {"train": 100, "test": 50}  # tiny random models tell little of few labels
    found["train"] |= {"local_steps": 12}
    next(c for c in found["client"] if c["name"] == client)["train"] = 0
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", strict=True)
    (event,) = [e for e in lessons(run) if e["client"] == client]
    assert event["taken"] and "own_loss" not in event
    sent = load_file(run.folder / f"clients/{client}/knowledge/sent.safetensors")["direction"]
    assert bool(sent.any()) == sends  # a decoder's zero-shot answers are directions too; an encoder has none
    trained = [e for e in run.events if e["event"] == "client_trained" and e["client"] == client]
    assert all(e["steps"] and e["moved"] for e in trained)
    alone = h2tune.run(
        file, out=tmp_path / "alone", overrides=["experimental.alone=true", "server.rounds=1"], strict=True
    )
    assert not [e for e in alone.events if e.get("stage") == "alone" and e.get("client") == client]
    assert {row["client"] for row in alone.table if row["alone"] is None} == {client}
    local = h2tune.run(file, out=tmp_path / "local", overrides=["server.strategy=local"])
    assert {e["steps"] for e in local.events if e["event"] == "client_trained" and e["client"] == client} == {
        0
    }


def test_a_client_with_neither_labels_nor_a_teacher_is_not_trained_and_the_run_says_so(tmp_path):
    found = alone_in_its_labels(tmp_path)
    found["server"]["rounds"], found["client"][2]["train"] = 1, 0
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")
    by_name = {e["client"]: e for e in lessons(run)}
    assert by_name["three"]["untrained"] and "untrained" not in by_name["one"]
    said = "has no labels and is not trained: nobody else's labels are like its own"
    assert lesson_line(by_name["three"]) == said
    assert "; not trained, as it has no labels" in (run.folder / "report.html").read_text()


def test_no_labels_without_a_consensus_is_an_error(tmp_path):
    base = federations.federation(tmp_path, THREE)
    base["client"][0]["train"] = 0
    with pytest.raises(H2TuneError, match="without labels"):
        parse(base, "file")
