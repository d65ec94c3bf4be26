"""A comparison of methods on the page."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.report_events import make_events, with_comparison
from helpers.report_page import Page, report

from h2tune.report import formats


def test_the_comparison_is_shown_where_it_was_made(tmp_path: Path) -> None:
    events = with_comparison(make_events())
    event, rows = events[-1], Page(report(tmp_path / "with", events)).rows["compare"]
    assert rows[0][1] == "difference to h2tune, points"
    assert len(rows) == 1 + len(event["rows"])
    for row, shown in zip(event["rows"], rows[1:], strict=True):
        assert shown[0] == row["method"] + (row["client"] or "mean over clients")
        assert shown[1].startswith(formats.points(row["difference"]))
        assert shown[2].startswith(f"{row['mean'] * 100:.1f} %") and shown[7] == "5"
    assert 'id="compare"' not in report(tmp_path / "without", make_events(rounds=1))


def test_a_comparison_alone_is_a_page_of_its_own(tmp_path: Path) -> None:
    (event,) = with_comparison([])
    event["rows"][1] |= {"difference_low": float("-inf"), "difference_high": None}
    event["problems"] = [{"method": "flora", "seed": 3, "reason": "no rank <fits>"}]
    html = report(tmp_path, [event])
    page = Page(html)
    assert len(page.rows["compare"]) == 1 + len(event["rows"])
    assert page.rows["problems"][1] == ["flora", formats.NONE, "seed 3: no rank <fits>"]
    assert re.findall(r'<section id="([a-z]+)"', html) == ["problems", "compare", "setup"]
    assert "4 methods · 5 seeds · test split" in html
    assert "finished</p>" in html
    assert "fedavg_lora, feed: shares nothing" in html


def test_the_mean_over_a_single_client_is_not_shown_beside_it(tmp_path: Path) -> None:
    (event,) = with_comparison([])
    event["rows"] = [row for row in event["rows"] if row["client"] in ("", "films")]
    page = Page(report(tmp_path, [event]))
    assert len(page.rows["compare"]) == 1 + 4
    assert all("mean over clients" not in row[0] for row in page.rows["compare"])


def test_a_comparison_shows_what_is_recovered_of_the_headroom(tmp_path: Path) -> None:
    (event,) = with_comparison([])
    event["recovered"] = [
        {"method": "h2tune", "headroom": 0.155, "headroom_low": 0.1, "headroom_high": 0.21, "share": 0.8,
         "share_low": -0.05, "share_high": 1.2, "harmed": 1, "clients": 3}
    ]  # fmt: skip
    rows = Page(report(tmp_path, [event])).rows["compare"]
    share = f"80 %{formats.MINUS}5 to 120"
    assert rows[-1] == ["h2tune", share, "+15.5+10.0 to +21.0", "1 of 3"]


def test_a_comparison_that_lacks_seeds_is_not_finished(tmp_path: Path) -> None:
    (event,) = with_comparison([])
    event["rows"][-1]["seeds"] = 4
    assert "not finished: not every method has 5 seeds" in report(tmp_path, [event])


def test_a_comparison_names_its_settings(tmp_path):
    (event,) = with_comparison([])
    event["settings"] = {"local": ["train.learning_rate=0.01"]}
    page = Page(report(tmp_path, [event]))
    assert page.row("setup", "local")[1] == "train.learning_rate=0.01"
    assert page.row("setup", "h2tune")[1] == "as in the federation file"
