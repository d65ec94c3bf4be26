"""Secure aggregation across machines: the apps' own code, on a grid in memory."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from functools import partial

import pytest
import tomli_w
import torch
from helpers import federations
from safetensors.torch import load_file

import h2tune
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation.messages import digest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from helpers.grids import EXPERIMENT, Grid, coordinator_of, identify, lay_out

from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.member import secure
from h2tune.flower.member.requests import RoundRequest
from h2tune.flower.member.round import take_part
from h2tune.flower.messages import unpack

SESSION = f"tiny|{EXPERIMENT}|0|{'0' * 32}"
CLIENTS = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    identify(monkeypatch)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    server = {"rounds": 2, "min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    return federations.federation(
        tmp_path_factory.mktemp("content"),
        CLIENTS,
        server=server,
        train={"local_steps": 2},
        data={"train": 8, "test": 4},
    )


@pytest.fixture(scope="module")
def embedded(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    h2tune.run(federations.write(folder, content), out=folder / "run")
    return folder / "run"


@pytest.fixture
def parties(content, tmp_path):
    return lay_out(content, tmp_path)


@pytest.fixture
def coordinator(parties):
    return coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0)


def shared(run, number):
    return load_file(run / f"server/round-{number:04d}/state.safetensors")["shared"]


def facts(run):
    return [e["secure_aggregation"] for e in read_events(run / "events.jsonl") if e["event"] == "aggregated"]


def key_files(parties):
    return sorted((parties / "members").rglob(secure.FILE))


def test_members_across_machines_give_the_sums_of_one_machine_and_no_own_value(
    parties, coordinator, embedded
):
    grid = Grid(parties)
    run = coordinate(grid, coordinator)
    for number in (1, 2):
        assert torch.equal(shared(run, number), shared(embedded, number))
    assert [f["survivors"] for f in facts(run)] == [["one", "three", "two"]] * 2
    kinds = [kind for _, kind, _ in grid.seen]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("query.keys", "query.shares", "train", "query.agree", "query.reveal"), 6
    ) | {"query.enrol": 3}
    assert len(key_files(parties)) == 3
    for file in key_files(parties):
        assert file.stat().st_mode & 0o777 == 0o600
        # no key is left after the last message
        assert not any(json.loads(file.read_text())["progress"]["private"].values())
    # a member's own values, against everything that the coordinator received and stored
    received = b"".join(
        repr(unpack(m.content)[0]).encode() + b"".join(t.numpy().tobytes() for t in tensors(m))
        for _, kind, m in grid.seen
        if kind != "query.enrol"
    )
    received += b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    for name, *_ in CLIENTS:
        for file in (parties / "members" / name).rglob("update.safetensors"):
            own = load_file(file)["quantised"]
            learned = own[0][own[0] != 0]
            assert learned.numel() > 50
            assert not any(
                learned[i : i + 1].numpy().tobytes() in received for i in range(0, learned.numel(), 5)
            )
            assert digest({"quantised": own}).encode() not in received
    replies = [unpack(m.content)[0].get("events", "[]") for _, kind, m in grid.seen if kind == "train"]
    events = [*read_events(run / "events.jsonl"), *(e for reply in replies for e in json.loads(reply))]
    (started,) = [e for e in events if e["event"] == "run_started"]
    assert not any("train" in client["examples"] for client in started["clients"])
    updates = [unpack(m.content)[1] for _, kind, m in grid.seen if kind == "train"]
    assert {update.examples for update in updates} == {1}  # no count: all have the same weight
    assert len(events) > 20 and not any({"relation", "coverage"} & event.keys() for event in events)


def tensors(message):
    update = unpack(message.content)[1]
    return [] if update is None else list(update.tensors.values())


@pytest.mark.parametrize("stage", ["query.keys", "query.shares", "train", "query.agree", "query.reveal"])
def test_a_member_that_is_lost_at_any_message_drops_out(parties, coordinator, embedded, stage):
    grid = Grid(parties, lost=lambda name, kind, count: (name, kind) == ("two", stage))
    run = coordinate(grid, coordinator)
    if stage in ("query.agree", "query.reveal"):
        assert torch.equal(shared(run, 1), shared(embedded, 1))
        assert [f["silent"] for f in facts(run)] == [["two"]] * 2
    else:
        assert [f["survivors"] for f in facts(run)] == [["one", "three"]] * 2
        failed = [e for e in read_events(run / "events.jsonl") if e["event"] == "client_failed"]
        assert [e["client"] for e in failed] == ["two"] * 2
        assert not torch.equal(shared(run, 1), shared(embedded, 1)) and shared(run, 1).norm() > 0.01


def test_an_update_that_is_requested_again_is_the_same_under_the_same_masks(parties, coordinator, embedded):
    sent: list[str] = []

    @dataclass
    class Twice(Grid):
        def run(self, name, kind, message):
            content = Grid.run(self, name, kind, message)
            if (name, kind) == ("two", "train"):
                again = Grid.run(self, name, kind, message)
                sent.extend(digest(unpack(c)[1].tensors) for c in (content, again))
                return again
            return content

    run = coordinate(Twice(parties), coordinator)
    assert sent[0] == sent[1] != sent[2] == sent[3]
    assert torch.equal(shared(run, 2), shared(embedded, 2))


def test_a_coordinator_that_goes_on_after_a_crash_has_new_keys_and_equal_sums(parties, coordinator, embedded):
    silent = {"on": True}
    grid = Grid(parties, lost=lambda name, kind, count: silent["on"] and kind == "query.reveal" and count > 0)
    with pytest.raises(H2TuneError, match="0 clients revealed, 2 are needed"):
        coordinate(grid, coordinator)
    silent["on"] = False
    run = coordinate(grid, coordinator)
    for number in (1, 2):
        assert torch.equal(shared(run, number), shared(embedded, number))
    fourth = coordinator.member[0].model_copy(update={"name": "four"})
    more = coordinator.model_copy(update={"member": (*coordinator.member, fourth)})
    with pytest.raises(H2TuneError, match="number of members"):
        coordinate(grid, more)


def ask(parties, coordinator, name, kind, **head):
    """Return a member's answer to a message of the protocol."""
    file = parties / "members" / name / "member.toml"
    head = {"client": name, "session": SESSION, "members": 3} | head
    return secure.handle(kind, file, coordinator.settings, EXPERIMENT, head)


def test_keys_that_are_requested_twice_are_the_same_until_shares_were_sent(parties, coordinator):
    talk = partial(ask, parties, coordinator)
    roster = {name: talk(name, "keys")["keys"] for name in ("one", "two", "three")}
    assert talk("one", "keys")["keys"] == roster["one"]
    later = SESSION[:-1] + "1"
    assert talk("one", "keys", session=later)["keys"] != roster["one"]
    with pytest.raises(H2TuneError, match="keys are of another session"):
        talk("one", "keys")  # a session does not begin twice
    talk("two", "shares", roster=roster)
    with pytest.raises(H2TuneError, match="in the state 'mask'"):
        talk("two", "keys")


def test_a_member_refuses_messages_that_break_the_protocol(parties, coordinator):
    file, settings = parties / "members" / "one" / "member.toml", coordinator.settings
    masks = secure.Masks(SESSION, 3, tuple(coordinator.roles), {})
    for sent, reason in (
        (None, "and only with it"),
        (replace(masks, session=SESSION.replace("|0|", "|1|")), "of another round"),
        (replace(masks, session=SESSION.replace("tiny", "other")), "not one of this federation and run"),
        (replace(masks, roles=("attn.q",)), "lack one that is shared"),
        (replace(masks, roles=tuple(reversed(coordinator.roles))), "not in order"),
    ):
        with pytest.raises(H2TuneError, match=reason):
            take_part(file, RoundRequest(settings, EXPERIMENT, "one", 0, "", {}, sent))
    talk = partial(ask, parties, coordinator, "one")
    for kind, head, reason in (
        ("keys", {"client": "two"}, "not for this member"),
        ("keys", {"members": 10**9}, "3 to 100"),
        ("keys", {"members": 4}, "says 4 members, the member's file of keys has 3"),
        ("keys", {"session": SESSION.replace(EXPERIMENT, "1" * 32)}, "not one of this federation and run"),
        ("keys", {"session": SESSION.replace("|0|", "|2|")}, "beyond the last"),
        ("keys", {"session": "s"}, "not one of this federation and run"),
        ("keys", {"session": 1}, "names no session"),
        ("shares", {"roster": {}}, "no keys"),
    ):
        with pytest.raises(H2TuneError, match=reason):
            talk(kind, **head)
    keys = talk("keys")["keys"]
    for head, reason in (
        ({"session": SESSION[:-1] + "1", "roster": {}}, "another session"),
        ({"roster": {"one": keys | {"box": "zz"}}}, "malformed"),
        ({"roster": {"one": keys | {"box": keys["box"] + "00"}}}, "malformed"),
        ({"roster": {"one": keys | {"box": " " + keys["box"][1:]}}}, "malformed"),
        ({"roster": {"one": keys | {"signature": "A" * 257}}}, "malformed"),
        ({"roster": {f"m{i}": keys for i in range(101)}}, "malformed"),
        ({"roster": {"o|ne": keys}}, "malformed"),
        ({"roster": [1]}, "malformed"),
        ({}, "malformed"),
    ):
        with pytest.raises(H2TuneError, match=reason):
            talk("shares", **head)


def test_a_member_may_require_secure_aggregation(parties, coordinator):
    file = parties / "members" / "one" / "member.toml"
    content = tomllib.loads(file.read_text())
    assert content["secure_aggregation"] is True  # the kit writes it for a federation that has it
    plain = coordinator.settings.model_copy(update={"server": coordinator.server.of_one()})
    request = RoundRequest(plain, EXPERIMENT, "one", 0, "", {})
    with pytest.raises(H2TuneError, match="with secure aggregation only"):
        take_part(file, request)
    file.write_text(tomli_w.dumps(content | {"secure_aggregation": False}))
    assert take_part(file, request).update is not None
