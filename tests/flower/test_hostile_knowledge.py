"""Label directions and decisions that no honest member sends are refused, and the others go on."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import RecordDict
from helpers.grids import ScriptedGrid, gathered, node

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Update
from h2tune.federation.run_store import RunStore
from h2tune.flower.coordinator.teaching import Teaching, _decision
from h2tune.flower.messages import pack

pytestmark = pytest.mark.usefixtures("identity")

SIZE, TEXTS = 4, ["a", "b", "c"]
HEAD = {"labels": "0" * 64, "unable": ""}
HONEST = torch.eye(SIZE, 2) / 2**0.5


def said(head=HEAD, direction=HONEST, **tensors) -> RecordDict:
    return pack(head, Update("two", 0, 0, {"direction": direction} | tensors))


def uploads(coordinator, cards, tmp_path, answer):
    """Return what the coordinator takes from `one`, who is honest, and `two`, who answers as given."""
    honest = pack(HEAD, Update("one", 0, 0, {"direction": HONEST}))
    grid = ScriptedGrid({1: node(cards["one"], lambda _: honest), 2: node(cards["two"], lambda _: answer)})
    messenger = gathered(grid, coordinator, tmp_path / "members.json").messenger
    store = RunStore(tmp_path / "run")
    try:
        return Teaching(messenger, TEXTS, {}, SIZE, store)._uploads()
    finally:
        store.close()


def test_honest_directions_pass(coordinator, cards, tmp_path):
    taken = uploads(coordinator, cards, tmp_path, said())
    assert set(taken) == {"one", "two"} and torch.equal(taken["two"][0]["direction"], HONEST)


HOSTILE = {
    "larger than one": said(direction=1.01 * HONEST),
    "far larger": said(direction=1e14 * HONEST),
    "not finite": said(direction=HONEST * float("nan")),
    "infinite": said(direction=HONEST / 0),
    "of another size": said(direction=torch.eye(SIZE + 1, 2) / 2**0.5),
    "of one label": said(direction=torch.eye(SIZE, 1)),
    "of too many labels": said(direction=torch.zeros(SIZE, 1001)),
    "flat": said(direction=HONEST.flatten()),
    "of another type": said(direction=HONEST.double()),
    "more than asked": said(more=torch.zeros(2)),
    "in another's name": pack(HEAD, Update("one", 0, 0, {"direction": HONEST})),
    "labels that are none": said(head=HEAD | {"labels": "yes"}),
    "no reason": said(head={"labels": "0" * 64}),
    "a long reason": said(head=HEAD | {"unable": "x" * 201}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_directions_that_no_honest_member_sends_are_left_out(kind, coordinator, cards, tmp_path):
    assert set(uploads(coordinator, cards, tmp_path, HOSTILE[kind])) == {"one"}


@pytest.mark.parametrize(
    "head",
    [{}, {"taken": 1}, {"taken": True, "why": 3}, {"taken": True, "own_share": 1e9},
     {"taken": True, "own_share": float("nan")}, {"taken": True, "own_share": "0.5"},
     {"taken": False, "why": "x" * 201}],
)  # fmt: skip
def test_a_decision_that_no_honest_member_sends_is_refused(head):
    assert _decision({"taken": True, "own_share": 0.5}) == {"taken": True, "own_share": 0.5}
    with pytest.raises(H2TuneError, match="decision is not valid"):
        _decision(head)
