"""Enrolment over a grid in memory: nodes that identify themselves, are silent, die, return or claim a name."""

from __future__ import annotations

import pytest

from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Error
from helpers.grids import ScriptedGrid, channel_over, exchange, gathered, node, update_of

pytestmark = pytest.mark.usefixtures("identity")


def test_a_run_with_too_few_members_can_be_started_again(coordinator, cards, tmp_path, monkeypatch):
    grid = ScriptedGrid({1: node(cards["one"], update_of("one"))})
    least = coordinator.server.model_copy(update={"min_clients": 2})
    both = coordinator.model_copy(update={"server": least, "gather": 0.2})
    with pytest.raises(H2TuneError, match="1 members enrolled within 0 s, min_clients is 2"):
        gathered(grid, both, tmp_path / "m.json")
    looks, get_nodes = [], grid.get_nodes
    grid.answers[2] = lambda message: None if len(looks) < 3 else node(cards["two"], None)(message)
    monkeypatch.setattr(grid, "get_nodes", lambda: looks.append(1) or get_nodes())
    channel = gathered(grid, both.model_copy(update={"gather": 10.0}), tmp_path / "m.json")
    assert channel.messenger.nodes == {"one": 1, "two": 2}


def test_a_node_that_dies_at_each_query_is_given_up_with_a_warning(coordinator, cards, tmp_path):
    queries = []

    def two(message):
        queries.append(message)
        return Error(8, "killed")

    grid = ScriptedGrid({1: node(cards["one"], update_of("one")), 2: two})
    channel = gathered(grid, coordinator, tmp_path / "m.json")
    assert len(queries) == 3
    assert "node 2 was asked 3 times" in channel.messenger.directory.warnings[0]
    grid.present = {1}
    channel.messenger.directory.look()
    grid.present, grid.answers[2] = {1, 2}, node(cards["two"], update_of("two"))  # it was restarted
    assert exchange(channel, "two")["two"].update is not None


def test_a_node_that_does_not_identify_itself_is_asked_again(coordinator, cards, tmp_path):
    messages = []

    def two(message):
        if message not in messages:
            messages.append(message)
        return None if message is messages[0] else node(cards["two"], update_of("two"))(message)

    hasty = coordinator.model_copy(update={"patience": 0.2, "gather": 5.0})
    grid = ScriptedGrid({1: node(cards["one"], update_of("one")), 2: two})
    replies = exchange(gathered(grid, hasty, tmp_path / "m.json"), "one", "two")
    assert replies["two"].update is not None and len(messages) == 3  # two queries, and the round


def test_a_member_that_returns_as_another_node_is_known_by_name(coordinator, cards, tmp_path):
    grid = ScriptedGrid({1: node(cards["one"], update_of("one")), 2: node(cards["two"], update_of("two"))})
    channel = gathered(grid, coordinator, tmp_path / "m.json")
    grid.answers[7] = grid.answers.pop(2)
    assert exchange(channel, "one", "two")["two"].update is not None
    assert channel.messenger.nodes == {"one": 1, "two": 7}


def test_a_member_that_was_disconnected_is_not_queried_again(coordinator, cards, tmp_path):
    queries = []

    def two(message):
        if message.metadata.message_type == "query.enrol":
            queries.append(message)
        return node(cards["two"], update_of("two"))(message)

    grid = ScriptedGrid({1: node(cards["one"], update_of("one")), 2: two})
    channel = gathered(grid, coordinator, tmp_path / "m.json")
    grid.present = {1}
    lost = exchange(channel, "two")["two"]
    assert lost.update is None and lost.reason == "it is not connected"
    grid.present = {1, 2}
    assert exchange(channel, "two")["two"].update is not None and len(queries) == 1


def test_a_member_may_join_between_rounds(coordinator, cards, tmp_path):
    grid = ScriptedGrid({1: node(cards["one"], update_of("one"))})
    channel = gathered(grid, coordinator.model_copy(update={"gather": 0.1}), tmp_path / "m.json")
    assert channel.joined() == [cards["one"].enrolment]
    grid.answers[2] = node(cards["two"], update_of("two"))
    assert list(exchange(channel, "one")) == ["one"]
    assert channel.joined() == [cards["two"].enrolment]
    assert channel.joined() == []


def test_one_name_at_two_nodes_belongs_to_the_first(coordinator, cards, tmp_path):
    answers = {1: node(cards["one"], update_of("one")), 2: node(cards["two"], update_of("two"))}
    answers[3] = node(cards["one"], update_of("false"))
    channel = gathered(ScriptedGrid(answers), coordinator, tmp_path / "m.json")
    replies = exchange(channel, "one", "two")
    assert replies["one"].update.client == "one" and replies["two"].update is not None
    assert channel.messenger.directory.warnings == ["node 3 identifies as 'one', which is at node 1"]


def test_too_few_members_are_an_error_with_the_reasons_of_refusals(coordinator, cards, tmp_path):
    stranger = cards["one"].model_copy(update={"name": "three"})
    channel = channel_over(
        ScriptedGrid({1: node(stranger, update_of("three"))}), coordinator, tmp_path / "m.json"
    )
    with pytest.raises(H2TuneError, match="nobody of that name"):
        channel.messenger.gather()
