from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers.report_events import make_events, with_problems, write_events

from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.report.view import build_view


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    events = make_events()
    assert read_events(write_events(tmp_path, events) / "events.jsonl") == events


@pytest.mark.parametrize("tail", ['{"event": "evalu', '{"event": "warning", "message": "\\ud8', "\0\0\0\0"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, tail: str) -> None:
    events = make_events(rounds=1, clients=1)
    assert read_events(write_events(tmp_path, events, tail=tail) / "events.jsonl") == events


def test_a_last_line_torn_within_a_character_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "warning"}\n' + '{"event": "é'.encode()[:-1])
    assert read_events(path) == [{"event": "warning"}]


def test_a_whole_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "a"}\n{"event": "b"}')
    assert [e["event"] for e in read_events(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "line", ['{"event": "evalu', "[1]", '{"client": "films"}', '{"event": 3}', "[" * 100_000]
)
def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"event": "a"}}\n{line}\n{{"event": "b"}}\n')
    with pytest.raises(H2TuneError, match=r"events\.jsonl, line 2: .*restore it"):
        read_events(path)


def test_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(H2TuneError, match=r"events\.jsonl: cannot be read"):
        read_events(tmp_path / "events.jsonl")


def test_view_sorts_scores_by_client_stage_and_round() -> None:
    events = make_events()
    shown = build_view(events)
    assert [client.name for client in shown.clients] == ["films", "news", "feed"]
    assert (shown.rounds, shown.planned, shown.finished) == (3, 3, True)
    for event in events:
        if event["event"] == "evaluated":
            client = shown.client(event["client"])
            stage = {"before": {-1: client.before}, "trained": client.federated, "alone": client.alone}
            score = stage[event["stage"]][event["round"]]
            assert score is not None
            assert (score.accuracy, score.examples) == (event["accuracy"], 200)
    assert [a.seconds for a in shown.aggregates.values()] == [0.18] * 3


def test_training_alone_is_kept_apart() -> None:
    shown = build_view(make_events())
    assert shown.aggregates[0].clients == ("feed", "films", "news")
    with_alone = [*make_events(), {"event": "client_failed", "client": "films", "round": 1, "reason": "no memory",
                                   "unit": "clients/films/alone/server/1/films"}]  # fmt: skip
    assert [(f.client, f.alone) for f in build_view(with_alone).failures] == [("films", True)]


def test_of_two_events_about_one_round_the_later_counts() -> None:
    events = make_events(clients=1, alone=False)
    again = [{**e, "bytes_up": 7} for e in events if e["event"] == "client_trained"]
    shown = build_view([*events, *again])
    assert [t.bytes_up for t in shown.clients[0].trained.values()] == [7, 7, 7]


def test_a_run_that_goes_on_has_more_rounds_than_it_began_with() -> None:
    events = make_events(rounds=5)
    events[0]["rounds"] = 3
    assert build_view(events).rounds == 5


def test_failures_and_warnings_are_kept_in_order() -> None:
    shown = build_view(with_problems(make_events()))
    assert [(f.client, f.round) for f in shown.failures] == [("news", 1)]
    assert [w.code for w in shown.warnings] == ["did_not_move", "did_not_move", "aggregate_unchanged"]
    assert 1 not in shown.client("news").trained


def test_what_is_not_finite_or_not_printable_does_not_get_through() -> None:
    lines = [
        '{"event": "client_trained", "client": "a\\u001b[31m\\ud800", "round": 0, "stage": "trained",'
        ' "losses": [{"step": 1, "phase": "joint", "loss": NaN}, {"step": 2, "loss": Infinity},'
        ' {"step": 3, "loss": 1}],'
        ' "moved": {"delta": -Infinity, "up": 2}, "bytes_up": 1e400}'
    ]
    shown = build_view([json.loads(line) for line in lines])
    (client,) = shown.clients
    assert client.name == "a�[31m�"
    assert client.trained[0].losses == (("joint", None), ("joint", None), ("joint", 1.0))
    assert client.trained[0].moved == {"up": 2.0}
    assert client.trained[0].bytes_up == 0


def test_validation_scores_are_shown_where_there_are_no_test_scores() -> None:
    events = [{**e, "split": "validation"} if e["event"] == "evaluated" else e for e in make_events()]
    shown = build_view(events)
    assert shown.split == "validation"
    assert all(client.federated for client in shown.clients)


def test_the_final_table_fills_in_for_missing_evaluations() -> None:
    events = [e for e in make_events() if e["event"] != "evaluated"]
    events[-1]["table"] = [
        {"client": "films", "before": 0.5, "alone": None, "federated": 0.75, "majority": 0.5}
    ]
    client = build_view(events).client("films")
    assert client.before and client.before.accuracy == 0.5
    last = client.last("federated")
    assert last and (last.accuracy, last.examples) == (0.75, None)
    assert client.last("alone") is None


def test_numbers_that_no_chart_could_place_are_not_numbers() -> None:
    shown = build_view(
        [{"event": "aggregated", "round": 0, "change": 1e300, "norm": 1e-200, "seconds": math.inf}]
    )
    assert (shown.aggregates[0].change, shown.aggregates[0].norm, shown.aggregates[0].seconds) == (
        None,
        0.0,
        None,
    )


def test_a_round_that_no_run_reaches_is_left_out() -> None:
    event = {"event": "client_trained", "client": "films", "stage": "trained"}
    assert build_view([{**event, "round": 10**15}, {**event, "round": -3}, {**event, "round": 2}]).rounds == 3
