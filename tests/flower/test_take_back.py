"""Rounds of a run across machines that are taken back: members go back with the coordinator, or say why not."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

from h2tune.errors import H2TuneError
from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from helpers.grids import Grid, coordinator_of, identify, lay_out

from h2tune.flower import audit
from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.coordinator.take_back import take_back_rounds
from h2tune.flower.member.take_back import rounds_of

ROUNDS = 3


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    identify(monkeypatch)


@pytest.fixture
def parties(tmp_path):
    content = federations.federation(
        tmp_path,
        train={"local_steps": 1},
        data={"train": 8, "test": 4},
        server={"rounds": ROUNDS},
        options={"llama": {"blocks": 1}, "bert": {"blocks": 1}},
    )
    return lay_out(content, tmp_path)


@pytest.fixture
def coordinator(parties):
    return coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0)


@pytest.fixture
def finished(parties, coordinator):
    """The run folder of a finished run."""
    return coordinate(Grid(parties, names=("one", "two")), coordinator)


def shared(run, number=ROUNDS):
    return load_file(run / f"server/round-{number:04d}/state.safetensors")["shared"]


def logged(run):
    events = federations.comparable(read_events(run / "events.jsonl"))
    return [e for e in events if e["event"] != "rounds_taken_back"]


def by_client(events):
    return sorted(
        events, key=lambda e: (e.get("round", -2), e["event"], e.get("client", ""), str(e.get("stage")))
    )


def test_members_go_back_and_the_rounds_run_again_give_the_same_to_the_bit(parties, coordinator, finished):
    expected, events = shared(finished), by_client(logged(finished))
    take_back_rounds(coordinator, 1)
    assert not (finished / "server/round-0002").exists()
    assert (finished / "taken-back/0001/server/round-0003/state.safetensors").exists()
    again = Grid(parties, names=("one", "two"))
    coordinate(again, coordinator)
    assert [kind for _, kind, _ in again.seen].count("train") == 2 * (ROUNDS - 1)
    assert torch.equal(shared(finished), expected)
    assert by_client(logged(finished)) == events
    (member,) = [p for p in (parties / "members/one").rglob("taken-back") if p.is_dir()]
    assert (member / "0001/clients/one/state/round-0001/private.safetensors").exists()
    own = [json.loads(line)["event"] for line in (member.parent / "events.jsonl").read_text().splitlines()]
    assert own.count("rounds_taken_back") == 1 and own.count("client_trained") == 2 * ROUNDS - 1
    found = audit.verify(finished / audit.FILE)
    assert not found.faults and not audit.missing_events(finished / "events.jsonl", found)


def test_a_hostile_member_is_left_out_of_the_rounds_that_are_run_again(parties, coordinator, finished):
    take_back_rounds(coordinator, 2)
    alone = coordinator.model_copy(update={"member": coordinator.member[:1]})
    coordinate(Grid(parties, names=("one", "two")), alone)
    used = [e["clients"] for e in read_events(finished / "events.jsonl") if e["event"] == "aggregated"]
    assert used == [["one", "two"], ["one", "two"], ["one"]]


def test_a_message_from_before_is_refused(parties, coordinator, finished):
    take_back_rounds(coordinator, 2)
    grid = Grid(parties, names=("one", "two"))
    coordinate(grid, coordinator)
    marker = next(finished.glob("taken-back/0001/facts.json"))
    marker.rename(
        marker.with_suffix(".gone")
    )  # as a coordinator whose folder was restored from an older copy
    more = coordinator.model_copy(
        update={"server": coordinator.server.model_copy(update={"rounds": ROUNDS + 1})}
    )
    with pytest.raises(H2TuneError, match="0 of 2 updates"):
        coordinate(Grid(parties, names=("one", "two")), more)
    reasons = {e["reason"] for e in read_events(finished / "events.jsonl") if e["event"] == "client_failed"}
    assert reasons == {"the message is from before rounds were taken back; the member's own log says more"}


def test_a_member_that_cannot_go_back_so_far_says_so(parties, coordinator, finished):
    import shutil

    (state,) = (parties / "members/two").rglob("clients/two/state/round-0000")
    shutil.rmtree(state)
    take_back_rounds(coordinator, 1)
    coordinate(Grid(parties, names=("one", "two")), coordinator)
    failed = [e for e in read_events(finished / "events.jsonl") if e["event"] == "client_failed"]
    assert {e["client"] for e in failed} == {"two"}
    assert (
        "keeps its last 3 rounds, and has no state of before round 1; take back fewer" in failed[0]["reason"]
    )


def test_rounds_that_are_run_again_count_for_a_members_policy(parties, coordinator, finished):
    file = parties / "members/two/member.toml"
    file.write_text(file.read_text() + f"\n[policy]\nrounds = {ROUNDS + 1}\n")
    take_back_rounds(coordinator, 2)
    coordinate(Grid(parties, names=("one", "two")), coordinator)
    assert not [e for e in read_events(finished / "events.jsonl") if e["event"] == "client_failed"]
    take_back_rounds(coordinator, 2)
    coordinate(Grid(parties, names=("one", "two")), coordinator)
    (failed,) = [e for e in read_events(finished / "events.jsonl") if e["event"] == "client_failed"]
    assert (
        failed["client"] == "two" and f"{ROUNDS + 2} rounds with those that are run again" in failed["reason"]
    )


def test_what_cannot_be_taken_back_is_refused_before_anything_changes(parties, coordinator, tmp_path):
    with pytest.raises(H2TuneError, match="no run to take rounds back from"):
        take_back_rounds(coordinator.model_copy(update={"folder": str(tmp_path / "none")}), 0)
    noisy = coordinator.privacy.model_copy(update={"noise": "member"})
    run = coordinate(Grid(parties, names=("one", "two")), coordinator)
    with pytest.raises(H2TuneError, match="their ε is spent"):
        take_back_rounds(coordinator.model_copy(update={"privacy": noisy}), 1)
    with pytest.raises(H2TuneError, match=f"no round {ROUNDS}"):
        take_back_rounds(coordinator, ROUNDS)
    assert shared(run).any()


@pytest.mark.parametrize("sent", [3, [-1], [True], ["1"], [10**9], [0] * 1001, None])
def test_rounds_in_a_message_are_checked(sent):
    with pytest.raises(H2TuneError, match="rounds that were taken back"):
        rounds_of({"taken_back": sent})
