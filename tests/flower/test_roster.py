"""What the coordinator accepts from members: cards, keys, and events."""

from __future__ import annotations

import json
import tomllib

import pytest
import tomli_w

from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.coordinator.events import read_events
from h2tune.flower.coordinator.progress import log_event
from h2tune.flower.coordinator.roster import Roster, pem
from h2tune.flower.load import load_coordinator
from h2tune.flower.member.join import join
from h2tune.flower.messages import pack, unpack


def test_who_may_join_is_checked_against_the_file(coordinator, cards, tmp_path):
    roster = Roster(coordinator, tmp_path / "members.json")
    for changes, message in (
        ({"name": "three"}, "nobody of that name"),
        ({"rank": 5}, "rank 5 is not the stated 4"),
        ({"examples": 9}, "more than the stated 8"),
        ({"roles": {"mlp.gate_up": [0]}}, "not shared here"),
        ({"roles": {"attn.q": [0, 99]}}, "do not fit depth"),
    ):
        with pytest.raises(H2TuneError, match=message):
            roster.admit(cards["one"].model_copy(update=changes).model_dump_json())
    with pytest.raises(H2TuneError, match="unknown key"):
        roster.admit(json.dumps(cards["one"].model_dump() | {"path": "/data"}))
    assert roster.admit(cards["one"].model_dump_json()) == cards["one"]
    assert Roster(coordinator, tmp_path / "members.json").cards == {"one": cards["one"]}
    with pytest.raises(H2TuneError, match="not what it enrolled with"):
        roster.admit(cards["one"].model_copy(update={"examples": 7}).model_dump_json())


def test_a_name_is_bound_to_its_key(parties, cards, tmp_path):
    secure = load_coordinator(parties / "coordinator" / "coordinator.toml")
    keys = {name: pem((parties / "members" / name / "node.pub").read_text()) for name in ("one", "two")}
    roster = Roster(secure, tmp_path / "members.json")
    for wrong in (b"", keys["two"]):
        with pytest.raises(H2TuneError, match="another key"):
            roster.admit(cards["one"].model_dump_json(), wrong)
    assert roster.admit(cards["one"].model_dump_json(), keys["one"]).name == "one"


def test_a_card_has_no_path_and_no_task_with_describe_off(parties, coordinator, tmp_path):
    content = tomllib.loads((parties / "members" / "one" / "member.toml").read_text()) | {"describe": False}
    (tmp_path / "m.toml").write_text(tomli_w.dumps(content))
    card = join(tmp_path / "m.toml", coordinator.settings).card
    assert (card.task, card.labels, card.majority_accuracy) == ("", [], 0.0)
    assert "/" not in card.model_dump_json()


def test_a_member_that_is_removed_from_the_coordinators_file_is_left_out(coordinator, cards, tmp_path):
    roster = Roster(coordinator, tmp_path / "m.json")
    for card in cards.values():
        roster.admit(card.model_dump_json())
    rest = coordinator.model_copy(update={"member": tuple(m for m in coordinator.member if m.name != "two")})
    left = Roster(rest, tmp_path / "m.json")
    assert "two" in roster.cards and "two" not in left.cards and "one" in left.cards
    with pytest.raises(H2TuneError, match="nobody of that name"):
        left.admit(cards["two"].model_dump_json())


def test_a_run_folder_of_another_version_is_refused(coordinator, tmp_path):
    (tmp_path / "coordinator.toml").write_text('name = "tiny"\n[adapter]\nmask = "leading"\n')
    with pytest.raises(H2TuneError, match=r"another version of h2tune.*Name another folder") as error:
        coordinate(None, coordinator.model_copy(update={"folder": str(tmp_path)}))
    assert "experimental.mask" in str(error.value)


EVALUATED = {"event": "evaluated", "client": "one", "round": 2, "stage": "trained", "split": "test"}
EVALUATED |= {"accuracy": 0.5, "loss": 0.7, "examples": 12, "seconds": 0.1}
WARNED = {"event": "warning", "client": "one", "round": 2, "code": "no_gradient", "message": "m"}


def test_events_of_others_and_of_other_kinds_are_left_out():
    good = EVALUATED
    before = good | {"round": -1, "stage": "before"}
    bad = [
        good | {"client": "two"},
        good | {"round": 1},
        good | {"event": "aggregated"},
        good | {"stage": "alone"},
        3,
    ]
    assert read_events(json.dumps([good, before, *bad]), "one", 2) == [good, before]
    with pytest.raises(H2TuneError):
        read_events("{", "one", 2)


@pytest.mark.parametrize(
    "event",
    [
        {k: v for k, v in WARNED.items() if k != "message"},
        WARNED | {"message": 3},
        WARNED | {"more": 1},
        EVALUATED | {"accuracy": "1.0"},
        EVALUATED | {"accuracy": 1.5},
        EVALUATED | {"accuracy": -0.1},
        EVALUATED | {"accuracy": float("nan")},
        EVALUATED | {"loss": None},
        EVALUATED | {"examples": 1.5},
        {k: v for k, v in EVALUATED.items() if k != "loss"},
    ],
)
def test_an_event_that_no_honest_member_sends_is_left_out(event):
    """A warning without a message ended the coordinator's run where its log was written."""
    assert read_events(json.dumps([WARNED, event, EVALUATED]), "one", 2) == [WARNED, EVALUATED]


def test_a_member_cannot_write_lines_into_the_coordinators_log(caplog):
    with caplog.at_level("WARNING", logger="flwr.h2tune"):
        log_event(WARNED | {"message": "first\nh2tune: round 3: two failed: it lies" + "x" * 1000})
    (record,) = caplog.records
    assert "\n" not in record.getMessage() and len(record.getMessage()) < 600


@pytest.mark.parametrize("levels", [9, 900, 100_000])
def test_deeply_nested_answers_are_refused_and_stop_nobody(levels):
    """The parser is recursive; a member must not be able to end the coordinator's run with brackets."""
    deep = "[" * levels + "]" * levels
    with pytest.raises(H2TuneError, match=r"nested|not a list"):
        read_events(f'[{{"event": "warning", "client": "one", "round": 2, "x": {deep}}}]', "one", 2)
    content = pack({})
    content["head"]["json"] = f'{{"events": {deep}}}'
    if levels > 1000:
        with pytest.raises(H2TuneError, match="malformed"):
            unpack(content)
