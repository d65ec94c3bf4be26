"""Accuracies, losses and differences on the page."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.report_events import make_events
from helpers.report_page import Page, charts, report

from h2tune.report import formats
from h2tune.report.charts import theme
from h2tune.report.intervals import difference, mean_difference, wilson
from h2tune.report.sections import charted


def test_the_table_has_the_numbers_of_the_events(tmp_path: Path) -> None:
    events = make_events()
    page = Page(report(tmp_path, events))
    gaps = []
    for row in events[-1]["table"]:
        shown = page.row("results", row["client"])
        gap = row["federated"] - row["alone"]
        gaps.append((gap, difference(row["federated"], 200, row["alone"], 200)))
        written = f"{gap * 100:+.1f}" if round(gap * 100, 1) else "0.0"
        low, high = gaps[-1][1]
        assert shown[1] == f"{written}{low * 100:+.1f} to {high * 100:+.1f}".replace("-", "−")
        for cell, stage in zip(shown[2:5], ("federated", "alone", "before"), strict=True):
            low, high = wilson(row[stage], 200)
            assert cell == f"{row[stage] * 100:.1f} %{low * 100:.1f} to {high * 100:.1f}"
        majority = next(c for c in events[0]["clients"] if c["name"] == row["client"])["majority_accuracy"]
        assert shown[5:] == [f"{majority * 100:.1f} %", "200"]
    low, high = mean_difference(gaps)
    assert page.row("results", "mean")[1].endswith(f"{low * 100:+.1f} to {high * 100:+.1f}".replace("-", "−"))
    mean = sum(row["federated"] for row in events[-1]["table"]) / 3
    assert page.row("results", "mean")[2] == f"{mean * 100:.1f} %"


def test_a_client_that_cannot_train_alone_does_not_count_in_the_mean_difference(tmp_path: Path) -> None:
    events = [e for e in make_events() if not (e.get("stage") == "alone" and e.get("client") == "feed")]
    table = {row["client"]: row for row in events[-1]["table"]}
    table["feed"]["alone"] = None
    html = report(tmp_path, events)
    page = Page(html)
    gaps = [table[name]["federated"] - table[name]["alone"] for name in ("films", "news")]
    assert page.row("results", "mean")[1].startswith(f"{sum(gaps) / 2 * 100:+.1f}".replace("-", "−"))
    assert page.row("results", "feed")[1] == page.row("results", "feed")[3] == "–"
    assert "A client without labels cannot train alone" in html


def test_rounds_without_training_alone_are_compared_with_no_training(tmp_path: Path) -> None:
    page = Page(report(tmp_path, make_events(alone=False)))
    assert page.rows["results"][0][1:4] == ["federated − before, points", "federated", "before"]
    assert not any("alone" in title for title in page.rows["results"][0])


def test_rounds_that_were_not_scored_are_no_gaps(tmp_path: Path) -> None:
    events = make_events(clients=1)
    scored = [e for e in events if e["event"] != "evaluated" or e["round"] in (-1, 2)]
    (chart,) = (
        c for c in charts(report(tmp_path, scored)) if "accuracy-0" in (c.get("aria-labelledby") or "")
    )
    lines = [e.get("d", "") for e in chart.iter("path") if e.get("stroke-width") == "1.8"]
    assert [(d.count("M"), d.count("L")) for d in lines] == [(1, 1), (1, 1)]


def test_a_score_that_is_no_accuracy_has_its_own_name(tmp_path: Path) -> None:
    events = [{**e, "measure": "ROUGE-L"} if e["event"] == "evaluated" else e for e in make_events(rounds=1)]
    html = report(tmp_path, events)
    assert "ROUGE-L by round" in html and "ROUGE-L, %" in html and "Accuracy by round" not in html
    some = [{k: v for k, v in e.items() if k != "measure" or e["client"] == "films"} for e in events]
    assert "Score by round" in report(tmp_path, some)


def test_of_many_clients_those_at_the_ends_have_charts_and_all_are_in_the_tables(tmp_path: Path) -> None:
    events = make_events(rounds=1, clients=charted.MOST + 6, alone=False)
    html = report(tmp_path, events)
    last = {e["client"]: e["accuracy"] for e in events if e["event"] == "evaluated" and e["round"] == 0}
    ordered = sorted(last, key=lambda name: (last[name], name))
    charts_of = {
        name
        for name in last
        if re.search(
            rf">{re.escape(name)}</h3>", html.partition('id="accuracy"')[2].partition("</section>")[0]
        )
    }
    assert charts_of == {*ordered[: charted.MOST // 2], *ordered[-charted.MOST // 2 :]}
    assert html.count(f"Charts are of {charted.MOST} of {len(last)} clients") == 7
    by_round = html.partition("Accuracy by round</summary>")[2].partition("</table>")[0]
    assert all(f">{name}<" in by_round for name in last)


def test_one_client_and_one_round(tmp_path: Path) -> None:
    html = report(tmp_path, make_events(rounds=1, clients=1))
    page = Page(html)
    assert [row[0] for row in page.rows["results"]] == ["client", "filmsmovie_reviews"]
    assert "round 1" in html


def test_losses_that_are_not_finite_are_marked(tmp_path: Path) -> None:
    events = make_events(rounds=2, clients=1)
    losses = next(e for e in events if e["event"] == "client_trained" and e["round"] == 1)["losses"]
    losses[3]["loss"], losses[4]["loss"] = float("nan"), float("inf")
    html = report(tmp_path, events)
    assert "not finite in 2 steps" in html
    (chart,) = (root for root in charts(html) if "loss-0" in (root.get("aria-labelledby") or ""))
    assert len([e for e in chart.iter("path") if e.get("fill") == theme.BAD]) == 2


def test_free_answers_have_no_majority(tmp_path: Path) -> None:
    events = make_events(rounds=1, clients=1)
    events[0]["clients"][0] |= {"labels": [], "majority_accuracy": 0.0}
    page = Page(report(tmp_path, events))
    assert page.row("results", "films")[5] == formats.NONE
    assert "free answers" in page.row("setup", "films")[2]


def test_a_difference_of_few_examples_stands_with_its_interval(tmp_path):
    events = make_events(rounds=1, clients=1, alone=False)
    for event in events:
        if event["event"] == "evaluated":
            event |= {"examples": 10, "accuracy": 0.9 if event["round"] == 0 else 0.5}
    html = report(tmp_path, events)
    low, high = (formats.points(end) for end in difference(0.9, 10, 0.5, 10))
    tile = html[html.index('class="tiles"') : html.index("<nav")]
    assert "+40.0 points" in tile and f"{low} to {high}" in tile
