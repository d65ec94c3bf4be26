"""The exchange before the first round, through real runs of tiny models."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import federations, tiny
from helpers.steps import Steps
from safetensors.torch import load_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

import h2tune
from h2tune import files
from h2tune.cli import main
from h2tune.config import load, parse
from h2tune.errors import H2TuneError
from h2tune.events import check_event
from h2tune.federation import client_round, head_reading
from h2tune.federation.h2tune import model_reader
from h2tune.federation.run_store import RunStore
from h2tune.federation.teaching import client as teaching_client
from h2tune.federation.teaching.exchange import MOST_PEERS, combined, copies, label_set
from h2tune.federation.teaching.lesson import Lesson
from h2tune.functional.losses import teaching
from h2tune.functional.teacher import SLOPE, STEEP
from h2tune.monitors.lines import lesson_line
from h2tune.runs.inspect import inspect
from h2tune.training.encode import Encoded, causal_batch, kept_logits
from h2tune.training.readings import read_rows

THREE = (("one", "bert", 4), ("two", "bert", 4), ("three", "llama", 4))  # a decoder in words takes no teacher
METHODS = {"h2tune": "directions", "self-training": "own", "fedmd": "predictions", "afl": "moments"}


def content(folder, strategy="h2tune", clients=THREE, **changes):
    """Return a federation whose public texts have the words that decide the labels."""
    draw = random.Random(99)
    words = ("good", "great", "fine", "bad", "poor", "dull")
    texts = [" ".join([*draw.sample(federations.FILL, 5), draw.choice(words)]) for _ in range(90)]
    texts = list(dict.fromkeys(texts))[:64]
    (folder / "public.txt").write_text("\n".join(texts) + "\n")
    found = federations.federation(
        folder, clients, server={"rounds": 2, "strategy": strategy},
        basis={"kind": "anchored", "texts": [str(folder / "public.txt")], "count": 64, "consensus": True},
        data={"train": 40, "test": 20}, experimental={"public_batch": 4, "increments": "mean"},
    )  # fmt: skip
    return found | changes


def lessons(run):
    return [e for e in run.events if e["event"] == "lesson_prepared"]


def shared(folder, number=2):
    return load_file(folder / f"server/round-{number:04d}/state.safetensors")["shared"]


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


def alone_in_its_labels(folder, seed=0):
    """Return a federation whose client "three" has labels of its own; "one" gets rows of this seed."""
    found = content(folder)
    rows = federations.write_rows(folder / "one.jsonl", seed=seed).read_text()
    (folder / "three.jsonl").write_text(rows.replace('"yes"', '"warm"').replace('"no"', '"cold"'))
    found["client"][2]["task"] |= {"labels": ["warm", "cold"]}
    found["server"]["rounds"] = 3
    return found


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


def test_the_terminal_says_what_the_federation_is_worth_to_each_client(tmp_path):
    file = federations.write(tmp_path, alone_in_its_labels(tmp_path))
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(tmp_path / "run")])
    assert found.exit_code == 0, found.exception
    assert "three · trains by itself: nobody else's labels are like its own" in found.stdout
    assert re.search(
        r"one · takes a teacher · right on \d+ % of its own labels, its own head on \d+ %", found.stdout
    )
    assert re.search(r"public texts cover \d\.\d\d of its texts", found.stdout)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            {"taken": False, "own_right": 0.9, "peers_right": 0.5},
            "declines the teacher, and trains by itself",
        ),
        (
            {"taken": True, "covered": 0.5},
            "public texts cover 0.50 of its texts, less than was ever measured",
        ),
        (
            {"taken": False, "reason": "its answers are free text"},
            "trains by itself: its answers are free text",
        ),
        (
            {"taken": False, "reason": "it answers in words", "own_right": 0.8, "peers_right": 0.9},
            "trains by itself: it answers in words",
        ),
        ({"taken": True}, "takes a teacher"),
    ],
)
def test_the_words_for_a_lesson(event, said):
    assert said in lesson_line(event)


def test_lessons_change_what_is_trained_and_nothing_is_shared_without(finished, tmp_path):
    file, run = finished
    without = h2tune.run(file, out=tmp_path / "run", overrides=["basis.consensus=false"])
    assert not lessons(without)
    assert not torch.equal(shared(without.folder), shared(run.folder))


@pytest.mark.parametrize("strategy", [m for m in METHODS if m != "h2tune"])
def test_yardsticks_run_by_name(tmp_path, strategy):
    run = h2tune.run(federations.write(tmp_path, content(tmp_path, strategy)), out=tmp_path / "run")
    assert {e["teaching"] for e in lessons(run)} == {METHODS[strategy]}
    assert all(row["federated"] is not None for row in run.table)


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


def test_other_labels_share_nothing():
    direction = {"direction": torch.eye(3, 2) / 2**0.5}
    received, between = combined(
        "directions",
        {
            "a": (direction, {"labels": label_set(("x", "y")), "unable": ""}),
            "b": (direction, {"labels": label_set(("y", "x")), "unable": ""}),
            "c": (direction, {"labels": label_set(("x", "z")), "unable": ""}),
            "d": ({}, {"labels": label_set(("x", "y")), "unable": "its answers are free text"}),
        },
    )
    weights = {name: peers["weights"] for name, peers in between.items()}
    assert between["a"]["cosines"] == {"b": 1.0}
    assert set(weights["a"]) == {"b"} and set(weights["b"]) == {"a"} and weights["c"] == weights["d"] == {}
    assert 0 < weights["a"]["b"] == weights["b"]["a"] <= 1
    assert not bool(received["c"]["peers"].any()) and received["d"] == {}


def test_where_the_labels_outweigh_the_teacher_the_head_starts_at_them_and_the_teacher_is_steep(
    tmp_path, monkeypatch
):
    file, started, slopes = federations.write(tmp_path, content(tmp_path)), [], []
    monkeypatch.setattr(client_round, "start_head", lambda layer, features, rows: started.append(rows))
    teach = teaching_client.teacher
    monkeypatch.setattr(
        teaching_client, "teacher", lambda scores, b, slope: slopes.append(slope) or teach(scores, b, slope)
    )
    for labels in (128.0, 40.0, 4.0):  # the clients have forty
        overrides = ["server.rounds=1", f"experimental.teacher_labels={labels}"]
        h2tune.run(file, out=tmp_path / str(labels), overrides=overrides)
        rows = started.pop()
        assert all((row.target is None) == (labels <= 40.0) for row in rows)
        assert set(slopes) == {STEEP if labels <= 40.0 else SLOPE}
        started.clear()
        slopes.clear()


def test_of_very_many_peers_events_tell_those_with_the_largest_numbers():
    facts = {"labels": label_set(("x", "y")), "unable": ""}
    draw = torch.Generator().manual_seed(0)
    sent = [torch.nn.functional.normalize(torch.randn(8, generator=draw), dim=0) for _ in range(199)]
    sent.append(-sent[3])  # somebody repeats another
    uploads = {
        f"c{i:03}": ({"direction": torch.stack([w, -w], 1) / 2**0.5}, facts) for i, w in enumerate(sent)
    }
    received, between = combined("directions", uploads)
    assert len(received) == 200 and received["c000"]["peers"].shape == (8, 2)
    for peers in between.values():
        assert MOST_PEERS <= len(peers["cosines"]) <= 2 * MOST_PEERS and set(peers["cosines"]) == set(
            peers["weights"]
        )
    largest = max(abs(float(sent[0] @ other)) for other in sent[1:])
    assert max(map(abs, between["c000"]["cosines"].values())) == pytest.approx(largest, abs=1e-3)
    assert "'c199'" in copies("c003", between["c003"])[0]["message"]


def test_directions_of_another_shape_harm_nobody_else():
    two, three = ({"direction": torch.eye(3, n) / n**0.5} for n in (2, 3))
    facts = {"labels": label_set(("x", "y")), "unable": ""}
    received, between = combined("directions", {"a": (two, facts), "b": (two, facts), "evil": (three, facts)})
    assert set(between["a"]["weights"]) == {"b"} and between["evil"]["weights"] == {}
    assert received["a"]["peers"].shape == (3, 2)


def test_micro_batches_must_divide_the_public_texts_too(tmp_path):
    found = content(tmp_path)
    found["train"] |= {"batch_size": 8, "accumulation": 8}  # of four public texts none would be left
    with pytest.raises(H2TuneError, match="4 public texts do not divide into 8"):
        parse(found, "file")


def test_a_decoder_that_answers_in_words_speaks_and_takes_no_teacher(finished):
    _, run = finished
    by_name = {e["client"]: e for e in lessons(run)}
    assert not by_name["three"]["taken"] and "answers in words" in by_name["three"]["reason"]
    assert by_name["three"]["sent"] and "three" in by_name["two"]["weights"] and by_name["two"]["taken"]


def test_free_answers_take_no_part_and_say_why(tmp_path):
    found = content(tmp_path)
    del found["client"][2]["task"]["labels"]
    found["data"] = {"train": 12, "test": 4}
    run = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")
    by_name = {e["client"]: e for e in lessons(run)}
    assert by_name["three"]["reason"] == "its answers are free text"
    assert not by_name["three"]["taken"] and by_name["three"]["bytes_up"] == 0


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


def test_no_labels_without_a_consensus_is_an_error(tmp_path):
    base = federations.federation(tmp_path, THREE)
    base["client"][0]["train"] = 0
    with pytest.raises(H2TuneError, match="without labels"):
        parse(base, "file")


def test_a_lesson_comes_back_from_its_tensors():
    rows = (Encoded((1, 2, 3), (), None, (0.25, 0.75)), Encoded((4,), (), None, (0.5, 0.5)))
    assert Lesson.of(Lesson(rows, {}).tensors(), {}).rows == rows
    assert Lesson.of(Lesson((), {}).tensors(), {"taken": False}).rows == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"basis": {"kind": "free", "consensus": True}}, "no common coordinates"),
        ({"basis": {"consensus": True}, "server": {"secure_aggregation": True}}, "hides each"),
        ({"basis": {"consensus": True}, "privacy": {"noise": "server"}}, "does not cover"),
    ],
)
def test_a_consensus_is_refused_where_it_cannot_be(tmp_path, changes, reason):
    base = federations.federation(tmp_path, THREE) | {"basis": {}}
    with pytest.raises(H2TuneError, match=reason):
        parse(base | changes, "file")


def test_a_consensus_is_a_choice_and_trains_all_parameters_in_one_pass(tmp_path):
    plain = load(federations.write(tmp_path, federations.on_anchored_basis(tmp_path)))
    taught = load(federations.write(tmp_path, federations.on_anchored_basis(tmp_path, consensus=True)))
    assert (plain.teaching, plain.experimental.alternation) == ("none", "step")
    assert (taught.teaching, taught.experimental.alternation) == ("directions", "joint")


def with_encoder(folder, monkeypatch, **changes):
    """Return a federation whose coordinates are those of a public encoder, named as on a hub."""
    monkeypatch.chdir(folder)
    found = content(folder, **changes)
    (encoder,) = [c["model"] for c in found["client"] if c["name"] == "two"]
    shutil.copytree(encoder, folder / "public/encoder")
    found["basis"]["encoder"] = "public/encoder"
    return found


def test_with_a_public_encoder_directions_alone_are_sent(tmp_path, monkeypatch):
    found = with_encoder(tmp_path, monkeypatch)
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", strict=True)
    once = [e for e in run.events if e["event"] in ("basis_agreed", "lesson_prepared")]
    assert {(e["event"], e["bytes_up"], e["bytes_down"]) for e in once} == {
        ("basis_agreed", 0, 0),
        ("lesson_prepared", 512, 512),
    }
    assert {tuple(client["basis_bytes"]) for client in inspect(load(file)).clients} == {(512, 512)}
    z = load_file(run.folder / "server/basis/basis.safetensors")["z"]
    found["client"] = found["client"][1:]  # who takes part does not change them
    other = h2tune.run(federations.write(tmp_path, found), out=tmp_path / "other")
    assert torch.equal(load_file(other.folder / "server/basis/basis.safetensors")["z"], z)


def test_with_a_public_encoder_a_model_reads_the_texts_once(tmp_path, monkeypatch):
    """The reading for frames has the final states of the exchange as well, and what a head reads that starts there."""
    read, heads = [], []

    def counted(*args, **options):
        read.append(len(options["modules"]))
        return read_rows(*args, **options)

    monkeypatch.setattr(model_reader, "SMALL", 0)
    monkeypatch.setattr(model_reader, "read_rows", counted)
    monkeypatch.setattr(head_reading, "SMALL", 0)
    monkeypatch.setattr(head_reading, "head_inputs", lambda *_, **__: heads.append(1))
    monkeypatch.setenv("H2TUNE_CACHE", str(tmp_path / "cache"))
    found = with_encoder(tmp_path, monkeypatch)
    h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")
    assert len(read) == 3 and read[0] == 0 and all(read[1:])  # the encoder, and two models of three clients
    assert not heads and list((tmp_path / "cache/readings").glob("*-head.safetensors"))


def test_a_public_encoder_is_read_from_safetensors_only(tmp_path, monkeypatch):
    found = with_encoder(tmp_path, monkeypatch)
    weights = tmp_path / "public/encoder/model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(H2TuneError, match="public/encoder: cannot be loaded"):
        h2tune.run(federations.write(tmp_path, found), out=tmp_path / "run")


def test_a_decoder_is_no_public_encoder(tmp_path):
    found = content(tmp_path)
    found["basis"]["encoder"] = found["client"][2]["model"]
    with pytest.raises(H2TuneError, match="is a decoder"):
        inspect(load(federations.write(tmp_path, found)))


@pytest.mark.parametrize(("encoder", "increments"), [(False, "mean"), (True, "mean"), (True, "none")])
def test_members_across_machines_have_the_lessons_of_one_machine(tmp_path, monkeypatch, encoder, increments):
    pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
    from helpers.grids import Grid, coordinator_of, identify, lay_out

    from h2tune.events import read_events
    from h2tune.flower.coordinator.app import coordinate

    identify(monkeypatch)
    make = with_encoder if encoder else lambda folder, _, **changes: content(folder, **changes)
    two = make(tmp_path, monkeypatch, clients=THREE[1:])
    two["experimental"]["increments"] = increments
    here = h2tune.run(federations.write(tmp_path, two), out=tmp_path / "run")
    parties = lay_out(two, tmp_path)
    grid = Grid(parties, names=("two", "three"))
    there = coordinate(grid, coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0))
    assert torch.equal(shared(there), shared(here.folder))
    events = [e for e in read_events(there / "events.jsonl") if e["event"] == "lesson_prepared"]
    assert federations.comparable(events) == federations.comparable(lessons(here))
    trained = [
        [(e["client"], e["round"], e["losses"]) for e in found if e["event"] == "client_trained"]
        for found in (here.events, read_events(there / "events.jsonl"))
    ]
    assert trained[0] == trained[1] and len(trained[0]) == 4
    kinds = [kind for _, kind, _ in grid.seen]
    assert ("query.view" in kinds) == (not encoder)
    assert kinds.count("query.knowledge") == kinds.count("query.lesson") == 2
    # what left a member: its directions, and nothing of its texts, labels' names or lesson
    sent = [m for _, kind, m in grid.seen if kind == "query.knowledge"]
    assert all(b"yes" not in repr(m.content).encode() for m in sent)


def test_a_stored_lesson_of_a_decoder_has_the_tokens_of_its_labels(tmp_path):
    """Else its public texts would be taught on nothing, in silence."""
    found = content(tmp_path)
    found["client"][2]["train"] = 0  # with labels it would take no teacher
    file = federations.write(tmp_path, found)
    run = h2tune.run(file, out=tmp_path / "run", overrides=["server.rounds=1"])
    store = RunStore(run.folder, resume=True)
    try:
        tensors, facts = store.committed("clients/three/lesson")
    finally:
        store.close()
    lesson = Lesson.of(tensors["lesson"], facts)
    words = AutoTokenizer.from_pretrained(load(file).client[2].model)
    firsts = {tuple(choice[0] for choice in row.choices) for row in lesson.rows}
    assert firsts == {tuple(words.convert_tokens_to_ids(["yes", "no"]))}
    assert Lesson.of(lesson.tensors(), facts) == lesson


def test_a_decoder_learns_from_its_lesson_and_a_text_without_label_tokens_is_an_error():
    model, words = tiny.causal("llama"), tiny.tokenizer(side="left")
    tokens = words.convert_tokens_to_ids(["positive", "negative"])
    choices = tuple((token,) for token in tokens)
    rows = [Encoded((1, 5, 6), (7,), 0, choices=choices), Encoded((1, 8), (), None, (0.9, 0.1), choices)]
    stored = Lesson.of(Lesson((rows[1],), {}).tensors(), {}).rows
    batch = causal_batch([rows[0], *stored], 0, positions=True)
    assert batch["firsts"].tolist() == [tokens, tokens]
    logits = kept_logits(model, batch, causal=True)[:, -1].gather(1, batch["firsts"])
    teaching(logits, batch["targets"], 1).backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) > 1e-3
    with pytest.raises(ValueError, match="no tokens of its labels"):
        causal_batch([replace(rows[1], choices=())], 0, positions=True)


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
