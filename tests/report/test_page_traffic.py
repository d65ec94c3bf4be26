"""What left a client, and what the server made of it, on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.report_events import make_events
from helpers.report_page import Page, report

from h2tune.compare.results import read_result
from h2tune.report import formats
from h2tune.report.sections import messages
from h2tune.report.view.traffic import Traffic, traffic_by_client
from h2tune.runs.card import _sent


def test_the_manifest_lists_every_tensor_that_left_a_client(tmp_path: Path) -> None:
    events = make_events()
    html = report(tmp_path, events)
    page = Page(html)
    sent = [e for e in events if e["event"] == "client_trained" and e["stage"] == "trained"]
    for event in sent:
        for tensor in (*event["sent"], *event["received"]):
            shape = " × ".join(map(str, tensor["shape"]))
            size = f"{tensor['bytes']:,}".replace(",", " ")
            assert any(
                row[0] == tensor["name"]
                and row[2:5] == [shape, tensor["dtype"], size]
                and tensor["sha256"][:12] in row
                for row in page.rows["wire"]
            ), tensor
    alone = {t["sha256"][:12] for e in events if e.get("stage") == "alone" for t in e.get("sent", ())}
    assert alone - {t["sha256"][:12] for e in sent for t in e["sent"]} == set()
    total = sum(e["bytes_up"] for e in sent if e["client"] == "films")
    assert page.row("wire", "films")[3] == formats.size(total).replace(formats.SPACE, " ")
    assert "A, B, the mask scores, task heads and data never leave it" in html


def test_another_strategy_is_not_said_to_do_as_h2tune_does(tmp_path: Path) -> None:
    events = make_events(rounds=1)
    events[0]["strategy"] = "fedit"
    sent = {"shape": [8, 4], "dtype": "float32", "bytes": 128, "sha256": "00"}
    for event in events:
        if event["event"] == "client_trained":
            event["sent"] = [{"name": "layer.0.down"} | sent, {"name": "layer.0.up"} | sent]
            event["moved"] = {"down": 1.0, "up": 2.0}
            del event["relation"], event["coverage"]
        elif event["event"] == "aggregated":
            event["change_by_role"] = {"down": 0.5, "up": 0.25}
    html = report(tmp_path, events)
    assert "With this strategy (fedit) a client sends layer.0.down, layer.0.up, its number" in html
    assert "task heads and data never leave it" not in html
    assert "By kind of tensor" in html
    assert "Mask coverage" not in html
    assert "shared middle matrices" not in html
    assert "In the first round G is zero" not in html


def test_very_many_tensors_are_all_listed_but_not_every_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MOST_CHECKSUMS", 50)
    events = make_events(rounds=4, clients=1, alone=False)
    for event in events:
        for tensor in event.get("sent", ()):
            tensor["name"] += f".{event['round']}"
    page = Page(report(tmp_path, events))
    head = next(row for row in page.rows["wire"] if row[0] == "tensor")
    assert head[5:] == ["SHA-256, round 1", "SHA-256, round 4"]
    names = {t["name"] for e in events for t in e.get("sent", ())}
    assert names <= {row[0] for row in page.rows["wire"]}


def with_relevance(weights, clients=("feed", "films", "news")):
    events = make_events()
    for event in events:
        if event["event"] == "aggregated" and event["stage"] == "trained":
            event["relevance"] = {"clients": list(clients), "weights": weights}
    return events


def test_relevance_is_shown_where_each_client_has_its_own_g(tmp_path):
    (tmp_path / "one").mkdir()
    plain = report(tmp_path / "one", make_events())
    assert "most relevant" not in plain and "has its own G" not in plain
    (tmp_path / "own").mkdir()
    shown = report(tmp_path / "own", with_relevance([[1, 0.49, 0.09], [0.49, 1, 0.06], [0.09, 0.06, 1]]))
    assert "most relevant is feed to films, 0.49" in shown and "has its own G" in shown


@pytest.mark.parametrize("weights", [[[1, 0.5]], [[1, 2, 3]] * 4, "none", None])
def test_a_relevance_that_is_none_is_left_out(tmp_path, weights):
    assert "most relevant" not in report(tmp_path, with_relevance(weights))


def test_messages_of_agreeing_on_a_basis_are_listed_too(tmp_path):
    view = {"name": "view", "shape": [240, 256], "dtype": "float32", "bytes": 245_760, "sha256": "ab" * 32}
    z = {**view, "name": "z", "sha256": "cd" * 32}
    agreed = {"event": "basis_agreed", "client": "films", "sent": [view], "received": [z],
              "bytes_up": 245_760, "bytes_down": 245_760}  # fmt: skip
    events = make_events(clients=1)
    html = report(tmp_path, [events[0], agreed, *events[1:]])
    rows = Page(html).rows["wire"]
    assert ["view", "sent", "240 × 256", "float32", "245 760", "ab" * 6, "–", "–", "–"] in rows
    assert ["z", "received", "240 × 256", "float32", "245 760", "cd" * 6, "–", "–", "–"] in rows
    sent = sum(e["bytes_up"] for e in events if e["event"] == "client_trained" and e["stage"] == "trained")
    assert rows[1][3] == formats.size(sent + 245_760).replace(formats.SPACE, " ")
    assert "view of the public texts" in html


def test_everything_that_left_is_in_the_totals_wherever_they_stand(tmp_path):
    view = {"name": "view", "shape": [4, 4], "dtype": "float32", "bytes": 64, "sha256": "ab" * 32}
    direction = {**view, "name": "direction", "bytes": 16, "sha256": "cd" * 32}
    agreed = {"event": "basis_agreed", "client": "films", "sent": [view], "received": [],
              "bytes_up": 64, "bytes_down": 0}  # fmt: skip
    lesson = {**agreed, "event": "lesson_prepared", "sent": [direction], "bytes_up": 16, "taken": True}
    events = make_events(clients=1, rounds=2)
    for event in events:
        if event["event"] == "aggregated":
            event["secure_aggregation"] = {
                "threshold": 1, "survivors": ["films"], "dropped": [], "silent": [], "bytes_up_of_keys_and_shares": 7,
            }  # fmt: skip
    events[1:1] = [agreed, lesson]
    in_rounds = sum(
        e["bytes_up"] for e in events if e.get("stage") == "trained" and e["event"] == "client_trained"
    )
    traffic = traffic_by_client(events)["films"]
    assert (traffic.before[0], traffic.total[0]) == (80, 80 + in_rounds + 2 * 7)
    shown = Page(html := report(tmp_path, events))
    total = formats.size(traffic.total[0]).replace(formats.SPACE, " ")
    assert shown.row("wire", "films")[3] == total and shown.row("wire", "films")[5] == "80 B"
    assert any(row[:2] == ["direction", "sent"] for row in shown.rows["wire"])
    assert "its label directions (direction)" in html
    assert formats.size(traffic.total[0]) in html[html.index('class="tiles"') : html.index("<nav")]
    assert read_result(events, "trained").clients["films"].bytes_up == traffic.total[0]
    assert "sent 1,234 bytes" in _sent(Traffic({}, {0: (1234, 0)})) and ", 80 of them before" in _sent(
        traffic
    )
