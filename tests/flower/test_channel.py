"""The coordinator's channel over a grid in memory: clients that answer, are silent, lose messages or send junk."""

from __future__ import annotations

import time

import httpx
import pytest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Error, RecordDict
from helpers.grids import ScriptedGrid, exchange, gathered, node, update_of

from h2tune.flower.coordinator.queries import ask
from h2tune.flower.messages import pack

pytestmark = pytest.mark.usefixtures("identity")


def exchanged(coordinator, tmp_path, answers):
    """Return the replies of a first round by client, from the answers by node."""
    return exchange(gathered(ScriptedGrid(answers), coordinator, tmp_path / "m.json"), "one", "two")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda message: None, "no answer within"),
        (lambda message: Error(5, "gone"), "was lost"),
        (lambda message: pack({"reason": "training failed"}), "training failed"),
        (lambda message: RecordDict(), "malformed"),
    ],
)
def test_a_round_goes_on_with_those_who_answer(coordinator, cards, tmp_path, answer, reason):
    answers = {1: node(cards["one"], update_of("one")), 2: node(cards["two"], answer)}
    replies = exchanged(coordinator, tmp_path, answers)
    assert replies["one"].update is not None
    assert replies["two"].update is None and reason in replies["two"].reason


def test_a_message_that_was_lost_is_sent_again_with_a_warning(coordinator, cards, tmp_path):
    lost = [Error(8, "killed")]

    def two(message):
        return lost.pop() if lost else update_of("two")(message)

    patient = coordinator.model_copy(update={"patience": 5.0, "deadline": 10.0})
    answers = {1: node(cards["one"], update_of("one")), 2: node(cards["two"], two)}
    replies = exchanged(patient, tmp_path, answers)
    assert replies["two"].update is not None and not replies["one"].events
    (event,) = replies["two"].events
    assert (event["code"], event["client"], event["round"]) == ("sent_again", "two", 0)
    assert event["message"] == "it was lost (Flower's code 8); it was asked again"


def retried(coordinator, cards, tmp_path, answer, deadline=10.0):
    """Return the reply of a client that is silent at first, and how many messages it got.

    Args:
        coordinator: The coordinator's file.
        cards: By client.
        tmp_path: A folder.
        answer: Returns its answer, from whether it is to the first message, and the number of polls since the second.
        deadline: Of the round, in seconds.
    """
    messages, polls = [], iter(range(1000))

    def two(message):
        if message not in messages:
            messages.append(message)
        return answer(message is messages[0], next(polls) if len(messages) > 1 else 0)

    hasty = coordinator.model_copy(update={"patience": 0.2, "deadline": deadline})
    answers = {1: node(cards["one"], update_of("one")), 2: node(cards["two"], two)}
    return exchanged(hasty, tmp_path, answers)["two"], len(messages)


def test_a_client_that_is_silent_long_after_the_others_gets_a_retry(coordinator, cards, tmp_path):
    """Flower may lose a message silently."""
    reply, count = retried(
        coordinator, cards, tmp_path, lambda first, _: None if first else update_of("two")(None)
    )
    assert reply.update is not None and count == 2
    (event,) = reply.events
    assert event["code"] == "sent_again" and event["message"].startswith("nothing came for 0 s")


def test_a_round_with_all_messages_lost_knows_how_long_the_last_one_took(coordinator, cards, tmp_path):
    """As long as nobody answers, the round itself says nothing about it, and half of the deadline is far."""
    lost = []

    def member(name):
        def answer(message):
            if message.metadata.group_id == "1" and name not in [of for of, _ in lost]:
                lost.append((name, message))
            silent = any(message is one for _, one in lost)
            return None if silent else update_of(name, int(message.metadata.group_id))(message)

        return answer

    hasty = coordinator.model_copy(update={"patience": 0.2, "deadline": 600.0})
    answers = {1: node(cards["one"], member("one")), 2: node(cards["two"], member("two"))}
    channel = gathered(ScriptedGrid(answers), hasty, tmp_path / "m.json")
    exchange(channel, "one", "two")
    began = time.monotonic()
    replies = exchange(channel, "one", "two", round_number=1)
    assert len(lost) == 2 and all(reply.update is not None for reply in replies.values())
    assert time.monotonic() - began < 60


def test_the_first_message_may_be_answered_after_the_second_is_refused(coordinator, cards, tmp_path):
    """If nothing was lost, a client may still be working on the first."""

    def answer(first, polls):
        if first:
            return update_of("two")(None) if polls > 3 else None
        return pack({"reason": "an earlier message is worked on"})

    reply, count = retried(coordinator, cards, tmp_path, answer)
    assert reply.update is not None and count == 2


def test_a_request_that_is_refused_and_never_answered_times_out(coordinator, cards, tmp_path):
    def answer(first, _):
        return None if first else pack({"reason": "the disk is full"})

    reply, count = retried(coordinator, cards, tmp_path, answer, deadline=1.0)
    assert reply.update is None and count == 3
    assert reply.reason == "no answer within 1 s; asked again, it said: the disk is full"


@pytest.mark.parametrize("call", ["get_nodes", "push_messages", "pull_messages"])
@pytest.mark.parametrize("status", [500, 401])
def test_calls_are_retried_after_server_errors_alone(coordinator, cards, tmp_path, monkeypatch, call, status):
    original, calls = getattr(ScriptedGrid, call), []

    def failing(self, *arguments):
        calls.append(call)
        if len(calls) in (2, 3, 5):
            response = httpx.Response(status, request=httpx.Request("POST", "http://superlink"))
            response.raise_for_status()
        return original(self, *arguments)

    monkeypatch.setattr(ScriptedGrid, call, failing)
    answers = {i: node(cards[name], update_of(name)) for i, name in ((1, "one"), (2, "two"))}
    patient = coordinator.model_copy(update={"gather": 10.0, "patience": 5.0, "deadline": 10.0})
    if status == 401:
        with pytest.raises(httpx.HTTPStatusError):
            exchanged(patient, tmp_path, answers)
    else:
        replies = exchanged(patient, tmp_path, answers)
        assert all(reply.update is not None and not reply.events for reply in replies.values())
        assert len(calls) >= 2


@pytest.mark.parametrize(
    "error", [KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), RuntimeError()]
)
def test_an_answer_that_cannot_be_decoded_costs_its_sender_alone(coordinator, cards, tmp_path, error):
    def broken(message):
        raise error

    answers = {1: node(cards["one"], update_of("one")), 2: node(cards["two"], broken)}
    replies = exchanged(coordinator, tmp_path, answers)
    assert replies["one"].update is not None
    assert replies["two"].update is None
    assert replies["two"].reason == f"its answer cannot be read ({type(error).__name__})"


def test_an_answer_that_is_lost_while_it_is_fetched_is_requested_again(coordinator, cards, tmp_path):
    """Flower marks an answer as delivered before its content is sent; then nobody answers, and the deadline is far."""
    lost = []

    def loses(name):
        def answer(message):
            if name not in lost:
                lost.append(name)
                message.metadata.__dict__["_message_id"] = "gone"  # no later poll returns it
                grid.waiting = {i: None if m is message else m for i, m in grid.waiting.items()}
                response = httpx.Response(500, request=httpx.Request("POST", "http://superlink"))
                response.raise_for_status()
            return update_of(name)(message)

        return answer

    grid = ScriptedGrid({i: node(cards[name], loses(name)) for i, name in ((1, "one"), (2, "two"))})
    patient = coordinator.model_copy(update={"patience": 0.5, "deadline": 600.0, "gather": 5.0})
    replies = exchange(gathered(grid, patient, tmp_path / "m.json"), "one", "two").values()
    assert all(reply.update is not None for reply in replies) and sorted(lost) == ["one", "two"]
    assert [e["code"] for reply in replies for e in reply.events] == ["sent_again"] * 2


def test_a_query_that_is_lost_is_sent_again(coordinator, cards, tmp_path):
    lost = [Error(8, "killed")]

    def two(message):
        return lost.pop() if lost else pack({"name": "two"})

    answers = {1: node(cards["one"], lambda m: pack({"name": "one"})), 2: node(cards["two"], two)}
    patient = coordinator.model_copy(update={"patience": 5.0})
    messenger = gathered(ScriptedGrid(answers), patient, tmp_path / "m.json").messenger
    names = ask(messenger, "x", {"one": {}, "two": {}}, lambda _, head, __: head["name"], seconds=20.0)
    assert names == {"one": "one", "two": "two"} and not lost


def test_a_query_without_an_answer_leaves_its_client_out(coordinator, cards, tmp_path, caplog):
    """Refused, malformed, or silent until time is up: the other's answer is returned, and the log has the reason."""
    for two, reason in (
        (lambda m: pack({"reason": "busy"}), "busy"),
        (lambda m: RecordDict(), "malformed"),
        (lambda m: None, "no answer within 1 s"),
    ):
        answers = {1: node(cards["one"], lambda m: pack({"name": "one"})), 2: node(cards["two"], two)}
        messenger = gathered(ScriptedGrid(answers), coordinator, tmp_path / "m.json").messenger
        with caplog.at_level("WARNING", logger="flwr.h2tune"):
            names = ask(messenger, "x", {"one": {}, "two": {}}, lambda _, head, __: head["name"], seconds=1.0)
        assert names == {"one": "one"} and f"'two': {reason}" in caplog.text
        caplog.clear()
