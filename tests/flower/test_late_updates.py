"""Updates that arrive after their round: dropped with a warning, or used with a smaller weight."""

from __future__ import annotations

import json

import pytest
import torch

from h2tune.federation.messages import WIRE, Update
from h2tune.federation.rounds import Schedule, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.functional.alignment import fixed_relation
from h2tune.runs.build import build_strategy

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Error
from helpers.grids import ScriptedGrid, exchange, gathered, node, update_of

from h2tune.flower.files import CoordinatorFile
from h2tune.flower.messages import pack

pytestmark = pytest.mark.usefixtures("identity")


def test_a_late_update_is_left_out_with_a_warning(coordinator, cards, tmp_path):
    slow = [None]

    def two(message):
        return slow[0] and update_of("two", int(message.metadata.group_id))(message)

    grid = ScriptedGrid({1: node(cards["one"], update_of("one")), 2: node(cards["two"], two)})
    channel = gathered(grid, coordinator.model_copy(update={"deadline": 0.3}), tmp_path / "m.json")
    first = exchange(channel, "one", "two")
    assert first["two"].update is None and "no answer within" in first["two"].reason
    slow[0] = True
    second = exchange(channel, "two", round_number=1)["two"]
    assert second.update.round == 1
    assert [(e["code"], e["round"]) for e in second.events] == [("late_update", 0)]


def run_with(how: str, coordinator, cards, folder):
    """Run two rounds in which "two" answers round 0 late, and return the events and the shared tensors.

    Args:
        how: "dropped", "lost" or "used": what happens to the late answer.
        coordinator: The coordinator's file.
        cards: By client.
        folder: A folder.
    """
    enrolments = [cards[name].enrolment for name in ("one", "two")]
    size, slots = int(coordinator.server.shared_rank), int(coordinator.server.slots)
    strategy = build_strategy(coordinator.federation, enrolments, size, slots)
    polls_in_second = []

    def trains(name: str):
        def answer(message):
            number = int(message.metadata.group_id)
            if name == "one":
                polls_in_second.extend([True] * number)
            elif not polls_in_second:
                return None  # in round 0; the answer comes in round 1
            elif number == 0 and how == "lost":
                return Error(5, "gone")
            elif number == 1 and len(polls_in_second) < 5:
                polls_in_second.append(True)  # so that the late answer is fetched before
                return None
            spec = strategy.upload_spec(name, number)
            fill = {"one": 0.5, "two": 0.25}[name] * (number + 1)
            tensors = {key: torch.full(shape, fill).to(WIRE[kind]) for key, (shape, kind) in spec.items()}
            return pack({"events": "[]"}, Update(name, number, cards[name].examples, tensors))

        return answer

    grid = ScriptedGrid({i: node(cards[name], trains(name)) for i, name in ((1, "one"), (2, "two"))})
    file = coordinator.model_copy(update={"late": "use" if how == "used" else "drop"})
    channel = gathered(grid, file, folder / "m.json")
    channel.joined()  # the strategy has the enrolled clients already
    store = RunStore(folder / "run")
    shared = run_rounds(strategy, channel, store, Schedule(2, 1, lambda *_: ["one", "two"]))
    store.close()
    return [json.loads(line) for line in store.events_file.read_text().splitlines()], shared["shared"]


def test_an_update_that_comes_after_its_round_is_dropped_or_counts_less(coordinator, cards, tmp_path):
    plain = coordinator.experimental.model_copy(update={"mask": "leading", "alignment": "depth"})
    hasty = coordinator.model_copy(update={"deadline": 0.3, "patience": 1.0, "experimental": plain})
    runs = {how: run_with(how, hasty, cards, tmp_path / how) for how in ("dropped", "lost", "used")}
    dropped, lost, used = (events for events, _ in runs.values())
    assert [e["clients"] for e in dropped if e["event"] == "aggregated"] == [["one"], ["one", "two"]]
    sums = [[e["sha256"] for e in events if e["event"] == "aggregated"] for events in (dropped, lost)]
    assert sums[0] == sums[1]
    assert [(e["client"], e["round"]) for e in dropped if e.get("code") == "late_update"] == [("two", 0)]
    assert [e["reason"] for e in dropped if e["event"] == "client_failed"] == ["no answer within 0 s"]
    # used: round 1 takes 1.0 of "one", 0.5 of "two", and its 0.25 of round 0 with 1 / √2 of its weight
    slots = int(hasty.server.slots)
    (w1, c1), (w2, c2) = (
        (card.examples, float(fixed_relation(slots, card.depth)[0].sum()))
        for card in (cards["one"], cards["two"])
    )
    late = w2 * c2 / 2**0.5
    step = (1.0 * w1 * c1 + 0.5 * w2 * c2 + 0.25 * late) / (w1 * c1 + w2 * c2 + late)
    assert float(runs["used"][1][0, 0, 0, 0]) == pytest.approx(0.5 + step, rel=1e-5)
    (second,) = [e for e in used if e["event"] == "aggregated" and e["round"] == 1]
    assert (second["clients"], second["late"]) == (["one", "two"], [{"client": "two", "round": 0}])


def test_late_updates_are_not_used_where_a_member_must_count_once(coordinator):
    robust = {"aggregation": "median", "min_clients": 3}
    for server in (robust, {"secure_aggregation": True, "weighting": "uniform", "min_clients": 4}):
        content = coordinator.model_dump(exclude_none=True)
        content["late"], content["server"] = "use", content["server"] | server
        content["member"] += tuple({"name": f"more{i}"} for i in range(3))
        with pytest.raises(ValueError, match="count a member twice"):
            CoordinatorFile.model_validate(content)
