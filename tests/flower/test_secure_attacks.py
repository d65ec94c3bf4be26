"""A coordinator that lies, against the members' own code on a grid in memory: each refusal names what did not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

from h2tune.errors import H2TuneError
from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from helpers.grids import Grid, coordinator_of, identify, lay_out

from h2tune.federation.secagg.encoding import keys_to_json
from h2tune.federation.secagg.keys import public_of
from h2tune.federation.secagg.local import local_signers
from h2tune.federation.secagg.progress import Secrets
from h2tune.federation.secagg.protocol import Keys
from h2tune.federation.secagg.signed import keys_statement
from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.coordinator.secure import GridCarrier
from h2tune.flower.member import sums
from h2tune.flower.messages import unpack

CLIENTS = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))
NAMES = tuple(name for name, *_ in CLIENTS)
OUR_KEYS = local_signers(["x"])["x"]


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    identify(monkeypatch)


@pytest.fixture
def parties(tmp_path):
    server = {"rounds": 1, "min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    content = federations.federation(
        tmp_path, CLIENTS, server=server, train={"local_steps": 2}, data={"train": 8, "test": 4}
    )
    return lay_out(content, tmp_path)


@pytest.fixture
def coordinator(parties):
    return coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0)


def elsewhere(coordinator):
    """Return a coordinator with a new run, under the same settings."""
    return coordinator.model_copy(update={"folder": coordinator.folder + "-2"})


def answers(grid, kind):
    return [unpack(message.content)[0] for _, k, message in grid.seen if k == kind]


def reasons(grid, kind):
    return [answer.get("reason", "") for answer in answers(grid, kind)]


def own(session) -> Keys:
    """Return keys for the name "two" that the coordinator made and signed itself."""
    made = Secrets.new()
    box, mask = public_of(made.box), public_of(made.mask)
    statement = keys_statement(session.name.encode(), session.threshold, "two", box, mask)
    return Keys(box, mask, OUR_KEYS.sign(statement))


def invented(session, roster):
    return {name: sent for name, sent in roster.items() if name != "two"} | {"four": own(session)}


LIES = {
    "swapped": lambda _, roster: roster | {"two": roster["three"], "three": roster["two"]},
    "made by the coordinator": lambda session, roster: roster | {"two": own(session)},
    "not signed": lambda _, roster: roster | {"two": replace(roster["two"], signature="")},
    "an invented member": invented,
}
REFUSALS = {
    "swapped": "'three' did not sign these keys for this session",
    "made by the coordinator": "'two' did not sign these keys for this session",
    "not signed": "the keys of 'two' are not signed",
    "an invented member": "'four' is in the roster, and this member knows no key of it",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_coordinator_that_lies_about_keys_gets_no_share_and_no_values(
    parties, coordinator, monkeypatch, lie
):
    def share(self, session, roster):
        sent = LIES[lie](session, roster)
        public = {name: keys_to_json(keys) for name, keys in sent.items()}
        heads = {name: {"roster": public} for name in roster}
        return self._ask("shares", session, heads, lambda head: head["boxes"])

    monkeypatch.setattr(GridCarrier, "share", share)
    grid = Grid(parties)
    with pytest.raises(H2TuneError, match="0 clients shared, 2 are needed"):
        coordinate(grid, coordinator)
    said = reasons(grid, "query.shares")
    others = [reason for reason in said if "its keys are not in the roster as it sent them" not in reason]
    assert len(said) == 3 and others and all(REFUSALS[lie] in reason for reason in others)
    assert not any("boxes" in answer for answer in answers(grid, "query.shares"))
    assert not answers(grid, "train")


def test_keys_of_an_earlier_round_are_refused(parties, coordinator, monkeypatch):
    honest, seen = GridCarrier.share, {}

    def share(self, session, roster):
        old = seen.setdefault("roster", roster)
        return honest(self, session, roster | {"two": old["two"]})

    monkeypatch.setattr(GridCarrier, "share", share)
    grid = Grid(parties)
    rounds = coordinator.server.model_copy(update={"rounds": 2})
    with pytest.raises(H2TuneError, match="0 clients shared, 2 are needed"):
        coordinate(grid, coordinator.model_copy(update={"server": rounds}))
    said = [reason for reason in reasons(grid, "query.shares") if reason]
    assert len(said) == 3 and sum("'two' did not sign these keys for this session" in r for r in said) == 2
    assert sum("its keys are not in the roster as it sent them" in r for r in said) == 1


def test_a_coordinator_that_names_different_survivors_gets_no_share(parties, coordinator, monkeypatch):
    def agree(self, session, survivors):
        heads = {
            name: {"survivors": [n for n in survivors if n != "two" or name == "two"]} for name in survivors
        }
        return self._ask("agree", session, heads, lambda head: head["signature"])

    monkeypatch.setattr(GridCarrier, "agree", agree)
    monkeypatch.setattr(GridCarrier, "keyring", lambda self: None)
    grid = Grid(parties)
    with pytest.raises(H2TuneError, match="0 clients revealed, 2 are needed"):
        coordinate(grid, coordinator)
    said = reasons(grid, "query.reveal")
    assert len(said) == 3 and not any("shares" in answer for answer in answers(grid, "query.reveal"))
    by_name = {name: unpack(m.content)[0]["reason"] for name, k, m in grid.seen if k == "query.reveal"}
    assert "'two' is not among the survivors" in by_name["one"]
    assert "'one' did not sign these survivors for this session: one, three, two" in by_name["two"]


def test_survivors_that_change_in_a_session_are_refused(parties, coordinator, monkeypatch):
    honest = GridCarrier.agree

    def agree(self, session, survivors):
        assert len(honest(self, session, survivors)) == 3
        assert not honest(self, session, ["one", "two"])
        return {}

    monkeypatch.setattr(GridCarrier, "agree", agree)
    grid = Grid(parties)
    with pytest.raises(H2TuneError, match="0 clients agreed, 2 are needed"):
        coordinate(grid, coordinator)
    said = [reason for reason in reasons(grid, "query.agree") if reason]
    assert len(said) == 2
    assert all(
        "it signed other survivors in this round before: one, three, two; now one, two" in r for r in said
    )


@dataclass(kw_only=True)
class LosesReveals(Grid):
    """Members reveal, and the coordinator does not get it: as if it crashed before it stored the sum."""

    lose: bool = True

    def run(self, name, kind, message):
        content = Grid.run(self, name, kind, message)
        if self.lose and kind == "query.reveal":
            return Grid.run(self, name, kind, message)  # asked again, it refuses
        return content


def without_two(name, kind, count):
    return (name, kind) == ("two", "train")


@pytest.mark.parametrize("new_run", [False, True])
def test_a_round_is_not_done_again_without_a_member(parties, coordinator, new_run):
    """The difference of both sums would be the values of that member."""
    with pytest.raises(H2TuneError, match="0 clients revealed, 2 are needed"):
        coordinate(LosesReveals(parties), coordinator)
    again = elsewhere(coordinator) if new_run else coordinator
    grid = Grid(parties, lost=without_two)
    with pytest.raises(H2TuneError, match="0 clients revealed, 2 are needed"):
        coordinate(grid, again)
    said = reasons(grid, "query.reveal")
    assert len(said) == 2 and all(
        "in the sum of one, three, two, and now it is that of one, three: the difference would show the values of two"
        in reason for reason in said
    )  # fmt: skip
    run = coordinate(Grid(parties), again)  # with all of them it is the same sum
    assert [e for e in read_events(run / "events.jsonl") if e["event"] == "run_finished"]
    shared = load_file(run / "server/round-0001/state.safetensors")["shared"]
    assert shared.norm() > 0.01 and bool(torch.isfinite(shared).all())
    for name in NAMES:
        record = next((parties / "members" / name).rglob(sums.FILE))
        assert record.stat().st_mode & 0o077 == 0


def test_a_record_of_sums_that_was_altered_is_refused(tmp_path):
    sums.note(tmp_path, 0, "a", ["one", "two", "three"])
    sums.note(tmp_path, 0, "a", ["one", "two", "three"])
    sums.note(tmp_path, 1, "a", ["one", "two"])
    sums.note(tmp_path, 0, "", ["one", "two"])  # zeros are in every sum
    (tmp_path / sums.FILE).write_text("[")
    with pytest.raises(H2TuneError, match=r"sums.json\) cannot be read"):
        sums.note(tmp_path, 0, "b", ["one", "two", "three"])


def test_a_member_without_the_others_keys_does_not_take_part(parties, coordinator):
    for name in NAMES:
        file = parties / "members" / name / "member.toml"
        file.write_text(file.read_text().replace('peers = "peers.toml"\n', ""))
    grid = Grid(parties)
    with pytest.raises(H2TuneError, match="0 members enrolled"):
        coordinate(grid, coordinator.model_copy(update={"gather": 2.0}))
    assert all("needs `key` and `peers`" in reason for reason in reasons(grid, "query.enrol"))
