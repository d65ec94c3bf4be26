"""The coordinator's channel over a grid in memory: who answers, is silent, lost or late, or sends what is no answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx
import pytest
import torch

from h2tune.errors import H2TuneError
from h2tune.federation.messages import WIRE, Download, Update
from h2tune.federation.rounds import Schedule, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.functional.alignment import fixed_relation
from h2tune.runs.build import build_strategy

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Error, Message, RecordDict
from helpers.grids import FixedDownloads, Node, Post, channel_over

from h2tune.flower.card import Card
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.messages import pack

pytestmark = pytest.mark.usefixtures("identity")


@dataclass
class Grid(Post):
    """A grid whose members answer at once, as `answers` says; None is no answer."""

    answers: dict
    present: set = field(default_factory=set)
    trained: list = field(default_factory=list)

    def get_nodes(self):
        return [Node(number) for number in sorted(self.present or self.answers)]

    def pull_messages(self, identifiers):
        replies = []
        for identifier in identifiers:
            message = self.waiting.get(identifier)
            if message is None:
                continue
            content = self.answers[message.metadata.dst_node_id](message)
            if content is None:
                continue
            self.waiting[identifier] = None
            message.metadata.__dict__["_src_node_id"] = 1
            reply = Message(content, reply_to=message)
            replies.append(reply)
        return replies


def answers(card: Card, train):
    def answer(message):
        if message.metadata.message_type == "query.enrol":
            return pack({"card": card.model_dump_json()})
        return train(message)

    return answer


def sends(name: str, round_number: int = 0):
    return lambda message: pack({"events": "[]"}, Update(name, round_number, 8, {}))


def exchanged(coordinator, tmp_path, table):
    grid = Grid(table)
    channel = channel_over(grid, coordinator, tmp_path / "m.json")
    channel.messenger.gather()
    downloads = {name: Download(0, {}, "") for name in ("one", "two")}
    return {reply.client: reply for reply in channel.exchange(0, FixedDownloads(downloads))}


def test_a_round_goes_on_with_those_who_answer(coordinator, cards, tmp_path):
    silent = answers(cards["two"], lambda message: None)
    lost = answers(cards["two"], lambda message: Error(5, "gone"))
    reason = answers(cards["two"], lambda message: pack({"reason": "training failed"}))
    broken = answers(cards["two"], lambda message: RecordDict())
    for i, (other, told) in enumerate(
        [(silent, "no answer within"), (lost, "was lost"), (reason, "training failed"), (broken, "malformed")]
    ):
        (tmp_path / str(i)).mkdir()
        replies = exchanged(
            coordinator, tmp_path / str(i), {1: answers(cards["one"], sends("one")), 2: other}
        )
        assert replies["one"].update is not None
        assert replies["two"].update is None and told in replies["two"].reason


def test_a_message_that_was_lost_is_sent_again_and_told(coordinator, cards, tmp_path):
    lost = [Error(8, "killed")]

    def two(message):
        return lost.pop() if lost else sends("two")(message)

    patient = coordinator.model_copy(update={"patience": 5.0, "deadline": 10.0})
    replies = exchanged(
        patient, tmp_path, {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)}
    )
    assert replies["two"].update is not None and not replies["one"].events
    (event,) = replies["two"].events
    assert (event["code"], event["client"], event["round"]) == ("sent_again", "two", 0)
    assert event["message"] == "it was lost (Flower's code 8); it was asked again"


def asked_again(coordinator, cards, tmp_path, second, deadline=10.0):
    """Return the reply of a member that is silent at first, and how often it was asked.

    Args:
        coordinator: The coordinator's file.
        cards: By member.
        tmp_path: A folder.
        second: Returns its answer to a message of the same round again, given how often it was looked for.
        deadline: Of the round, in seconds.
    """
    asked, looks = [], iter(range(1000))

    def two(message):
        if message not in asked:
            asked.append(message)
        return second(message is asked[0], next(looks) if len(asked) > 1 else 0)

    hasty = coordinator.model_copy(update={"patience": 0.2, "deadline": deadline})
    table = {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)}
    return exchanged(hasty, tmp_path, table)["two"], len(asked)


def test_one_that_is_silent_long_after_the_others_is_asked_again(coordinator, cards, tmp_path):
    """Flower may lose a message without a word."""
    reply, count = asked_again(
        coordinator, cards, tmp_path, lambda first, _: None if first else sends("two")(None)
    )
    assert reply.update is not None and count == 2
    (event,) = reply.events
    assert event["code"] == "sent_again" and event["message"].startswith("nothing came for 0 s")


def test_the_first_message_is_waited_for_though_the_second_is_refused(coordinator, cards, tmp_path):
    """Where nothing was lost, a member may still be at work on the first."""

    def second(first, looks):
        if first:
            return sends("two")(None) if looks > 3 else None
        return pack({"reason": "an earlier message is worked on"})

    reply, count = asked_again(coordinator, cards, tmp_path, second)
    assert reply.update is not None and count == 2


def test_what_is_refused_and_never_answered_ends_with_the_round(coordinator, cards, tmp_path):
    def second(first, _):
        return None if first else pack({"reason": "the disk is full"})

    reply, count = asked_again(coordinator, cards, tmp_path, second, deadline=1.0)
    assert reply.update is None and count == 3
    assert reply.reason == "no answer within 1 s; asked again, it said: the disk is full"


@pytest.mark.parametrize("call", ["get_nodes", "push_messages", "pull_messages"])
@pytest.mark.parametrize("status", [500, 401])
def test_a_superlink_that_fails_for_a_moment_is_asked_again(
    coordinator, cards, tmp_path, monkeypatch, call, status
):
    sound, calls = getattr(Grid, call), []

    def failing(self, *arguments):
        calls.append(call)
        if len(calls) in (2, 3, 5):
            response = httpx.Response(status, request=httpx.Request("POST", "http://superlink"))
            response.raise_for_status()
        return sound(self, *arguments)

    monkeypatch.setattr(Grid, call, failing)
    table = {i: answers(cards[name], sends(name)) for i, name in ((1, "one"), (2, "two"))}
    patient = coordinator.model_copy(update={"gather": 10.0, "patience": 5.0, "deadline": 10.0})
    if status == 401:
        with pytest.raises(httpx.HTTPStatusError):
            exchanged(patient, tmp_path, table)
    else:
        replies = exchanged(patient, tmp_path, table)
        assert all(reply.update is not None and not reply.events for reply in replies.values())
        assert len(calls) > 3


@pytest.mark.parametrize(
    "error", [KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), RuntimeError()]
)
def test_an_answer_that_flower_cannot_decode_costs_its_sender_alone(coordinator, cards, tmp_path, error):
    def broken(message):
        raise error

    table = {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], broken)}
    replies = exchanged(coordinator, tmp_path, table)
    assert replies["one"].update is not None
    assert replies["two"].update is None
    assert replies["two"].reason == f"its answer cannot be read ({type(error).__name__})"


def test_an_answer_that_the_superlink_loses_as_it_is_fetched_is_asked_for_again(coordinator, cards, tmp_path):
    """Flower marks an answer as delivered before its content is sent; then nobody has answered, and time is long."""
    lost = []

    def loses(name):
        def answer(message):
            if name not in lost:
                lost.append(name)
                message.metadata.__dict__["_message_id"] = "gone"  # it will not be found again
                grid.waiting = {i: None if m is message else m for i, m in grid.waiting.items()}
                response = httpx.Response(500, request=httpx.Request("POST", "http://superlink"))
                response.raise_for_status()
            return sends(name)(message)

        return answer

    grid = Grid({i: answers(cards[name], loses(name)) for i, name in ((1, "one"), (2, "two"))})
    patient = coordinator.model_copy(update={"patience": 0.5, "deadline": 600.0, "gather": 5.0})
    channel = channel_over(grid, patient, tmp_path / "m.json")
    channel.messenger.gather()
    downloads = {name: Download(0, {}, "") for name in ("one", "two")}
    replies = list(channel.exchange(0, FixedDownloads(downloads)))
    assert all(reply.update is not None for reply in replies) and sorted(lost) == ["one", "two"]
    assert [e["code"] for reply in replies for e in reply.events] == ["sent_again"] * 2


def test_a_query_that_is_lost_is_asked_again(coordinator, cards, tmp_path):
    lost = [Error(8, "killed")]

    def two(message):
        return lost.pop() if lost else pack({"told": "two"})

    table = {1: answers(cards["one"], lambda m: pack({"told": "one"})), 2: answers(cards["two"], two)}
    patient = coordinator.model_copy(update={"patience": 5.0})
    channel = channel_over(Grid(table), patient, tmp_path / "m.json")
    channel.messenger.gather()
    told = ask(
        channel.messenger, "x", {"one": {}, "two": {}}, lambda name, head, _: head["told"], seconds=20.0
    )
    assert told == {"one": "one", "two": "two"} and not lost


def test_a_run_that_found_too_few_members_waits_for_the_others_when_it_is_started_again(
    coordinator, cards, tmp_path
):
    grid = Grid({1: answers(cards["one"], sends("one"))})
    least = coordinator.server.model_copy(update={"min_clients": 2})
    both = coordinator.model_copy(update={"server": least, "gather": 0.2})
    with pytest.raises(H2TuneError, match="1 members enrolled within 0 s, min_clients is 2"):
        channel_over(grid, both, tmp_path / "m.json").messenger.gather()
    grid.answers[2] = lambda message: None if len(grid.trained) < 3 else answers(cards["two"], None)(message)
    look = grid.get_nodes

    def looked():
        grid.trained.append(1)
        return look()

    grid.get_nodes = looked
    longer = both.model_copy(update={"gather": 10.0})
    channel = channel_over(grid, longer, tmp_path / "m.json")
    channel.messenger.gather()
    assert channel.messenger.nodes == {"one": 1, "two": 2}


def test_a_node_whose_process_dies_at_each_question_is_given_up_and_told(coordinator, cards, tmp_path):
    asked = []

    def two(message):
        asked.append(message)
        return Error(8, "killed")

    grid = Grid({1: answers(cards["one"], sends("one")), 2: two})
    channel = channel_over(grid, coordinator, tmp_path / "m.json")
    channel.messenger.gather()
    assert len(asked) == 3
    assert "node 2 was asked 3 times who it is" in channel.messenger.directory.warnings[0]
    grid.present = {1}
    channel.messenger.directory.look()
    grid.present, grid.answers[2] = {1, 2}, answers(cards["two"], sends("two"))  # it was started again
    (reply,) = channel.exchange(0, FixedDownloads({"two": Download(0, {}, "")}))
    assert reply.update is not None


def test_a_node_that_does_not_say_who_it_is_is_asked_again(coordinator, cards, tmp_path):
    asked = []

    def two(message):
        if message not in asked:
            asked.append(message)
        return None if message is asked[0] else answers(cards["two"], sends("two"))(message)

    hasty = coordinator.model_copy(update={"patience": 0.2, "gather": 5.0})
    replies = exchanged(hasty, tmp_path, {1: answers(cards["one"], sends("one")), 2: two})
    assert replies["two"].update is not None and len(asked) == 3  # who it is, twice; and the round


def test_a_late_update_is_left_out_and_told(coordinator, cards, tmp_path):
    slow = [None]

    def two(message):
        return slow[0] and pack({"events": "[]"}, Update("two", int(message.metadata.group_id), 8, {}))

    grid = Grid({1: answers(cards["one"], sends("one")), 2: answers(cards["two"], two)})
    hasty = coordinator.model_copy(update={"deadline": 0.3})
    channel = channel_over(grid, hasty, tmp_path / "m.json")
    channel.messenger.gather()
    first = {
        r.client: r
        for r in channel.exchange(0, FixedDownloads({name: Download(0, {}, "") for name in ("one", "two")}))
    }
    assert first["two"].update is None and "no answer within" in first["two"].reason
    slow[0] = True
    (second,) = channel.exchange(1, FixedDownloads({"two": Download(1, {}, "")}))
    assert second.update.round == 1
    assert [(e["code"], e["round"]) for e in second.events] == [("late_update", 0)]


def test_an_update_that_comes_after_its_round_changes_no_aggregate_or_counts_less(
    coordinator, cards, tmp_path
):
    plain = coordinator.experimental.model_copy(update={"mask": "leading", "alignment": "depth"})
    hasty = coordinator.model_copy(update={"deadline": 0.3, "patience": 1.0, "experimental": plain})
    enrolments = [cards[name].enrolment for name in ("one", "two")]
    server = hasty.server

    def run(how: str):
        folder, late = tmp_path / how, how != "lost"
        strategy = build_strategy(hasty.federation, enrolments, int(server.shared_rank), int(server.slots))
        in_second = []

        def trains(name: str):
            def answer(message):
                number = int(message.metadata.group_id)
                if name == "one":
                    in_second.extend([True] * number)
                elif not in_second:
                    return None  # in round 0; its answer is there when round 1 is on
                elif number == 0 and not late:
                    return Error(5, "gone")
                elif number == 1 and len(in_second) < 5:
                    in_second.append(True)  # so that the late one is taken in before
                    return None
                spec = strategy.upload_spec(name, number)
                fill = {"one": 0.5, "two": 0.25}[name] * (number + 1)
                tensors = {key: torch.full(shape, fill).to(WIRE[kind]) for key, (shape, kind) in spec.items()}
                return pack({"events": "[]"}, Update(name, number, cards[name].examples, tensors))

            return answer

        grid = Grid({1: answers(cards["one"], trains("one")), 2: answers(cards["two"], trains("two"))})
        of_file = hasty.model_copy(update={"late": "use" if how == "used" else "drop"})
        channel = channel_over(grid, of_file, folder / "m.json")
        channel.messenger.gather()
        channel.joined()  # those who enrolled are in the strategy already
        store = RunStore(folder / "run")
        shared = run_rounds(strategy, channel, store, Schedule(2, 1, lambda *_: ["one", "two"]))
        store.close()
        return [json.loads(line) for line in store.events_file.read_text().splitlines()], shared["shared"]

    (with_late, _), (without, _), (used, shared) = map(run, ("dropped", "lost", "used"))
    took_part = [e["clients"] for e in with_late if e["event"] == "aggregated"]
    assert took_part == [["one"], ["one", "two"]]
    sums = [[e["sha256"] for e in events if e["event"] == "aggregated"] for events in (with_late, without)]
    assert sums[0] == sums[1]
    told = [(e["client"], e["round"]) for e in with_late if e.get("code") == "late_update"]
    assert told == [("two", 0)]
    assert [e["reason"] for e in with_late if e["event"] == "client_failed"] == ["no answer within 0 s"]
    # used: round 1 takes 1.0 of "one", 0.5 of "two", and its 0.25 of round 0 with 1 / √2 of its weight
    (w1, c1), (w2, c2) = (
        (e.examples, float(fixed_relation(int(server.slots), e.depth)[0].sum())) for e in enrolments
    )
    stale = w2 * c2 / 2**0.5
    step = (1.0 * w1 * c1 + 0.5 * w2 * c2 + 0.25 * stale) / (w1 * c1 + w2 * c2 + stale)
    assert float(shared[0, 0, 0, 0]) == pytest.approx(0.5 + step, rel=1e-5)
    (second,) = [e for e in used if e["event"] == "aggregated" and e["round"] == 1]
    assert (second["clients"], second["late"]) == (["one", "two"], [{"client": "two", "round": 0}])


def test_a_member_that_returns_as_another_node_is_known_by_name(coordinator, cards, tmp_path):
    grid = Grid({1: answers(cards["one"], sends("one")), 2: answers(cards["two"], sends("two"))})
    channel = channel_over(grid, coordinator, tmp_path / "m.json")
    channel.messenger.gather()
    grid.answers[7] = grid.answers.pop(2)
    replies = {
        r.client: r
        for r in channel.exchange(0, FixedDownloads({name: Download(0, {}, "") for name in ("one", "two")}))
    }
    assert replies["two"].update is not None and channel.messenger.nodes == {"one": 1, "two": 7}


def test_a_member_that_was_cut_off_is_not_asked_again_who_it_is(coordinator, cards, tmp_path):
    asked = []

    def two(message):
        if message.metadata.message_type == "query.enrol":
            asked.append(message)
        return answers(cards["two"], sends("two"))(message)

    grid = Grid({1: answers(cards["one"], sends("one")), 2: two})
    channel = channel_over(grid, coordinator, tmp_path / "m.json")
    channel.messenger.gather()
    grid.present = {1}
    (lost,) = channel.exchange(0, FixedDownloads({"two": Download(0, {}, "")}))
    assert lost.update is None and lost.reason == "it is not connected"
    grid.present = {1, 2}
    (back,) = channel.exchange(0, FixedDownloads({"two": Download(0, {}, "")}))
    assert back.update is not None and len(asked) == 1


def test_a_member_may_join_between_rounds(coordinator, cards, tmp_path):
    grid = Grid({1: answers(cards["one"], sends("one"))})
    early = coordinator.model_copy(update={"gather": 0.1})
    channel = channel_over(grid, early, tmp_path / "m.json")
    channel.messenger.gather()
    assert channel.joined() == [cards["one"].enrolment]
    grid.answers[2] = answers(cards["two"], sends("two"))
    assert [r.client for r in channel.exchange(0, FixedDownloads({"one": Download(0, {}, "")}))] == ["one"]
    assert channel.joined() == [cards["two"].enrolment]
    assert channel.joined() == []


def test_one_name_at_two_nodes_belongs_to_the_first(coordinator, cards, tmp_path):
    table = {1: answers(cards["one"], sends("one")), 2: answers(cards["two"], sends("two"))}
    table[3] = answers(cards["one"], sends("false"))
    replies = exchanged(coordinator, tmp_path, table)
    assert replies["one"].update.client == "one" and replies["two"].update is not None


def test_too_few_members_are_told_with_the_reasons(coordinator, cards, tmp_path):
    strange = cards["one"].model_copy(update={"name": "three"})
    with pytest.raises(H2TuneError, match="nobody of that name"):
        exchanged(coordinator, tmp_path, {1: answers(strange, sends("three"))})
