"""The whole page: its parts, what it may load, and text of events that stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_events import make_events, with_comparison, with_problems, write_events
from helpers.report_page import Page, charts, report

from h2tune.errors import H2TuneError
from h2tune.report import write_report

KEYS = (
    "results",
    "accuracy",
    "loss",
    "wire",
    "movement",
    "relation",
    "coverage",
    "shared",
    "bytes",
    "time",
    "setup",
)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(tmp_path_factory.mktemp("run"), with_comparison(with_problems(make_events())))


def test_a_row_can_be_a_block_on_a_telephone(html: str) -> None:
    """Without the heads of its columns each cell has its own; folded tables scroll."""
    page = Page(html)
    titles = [attributes.get("data-title") for tag, attributes in page.elements if tag == "td"]
    assert {"federated − alone, points", "federated", "alone", "what happened"} <= set(titles)
    classes = [(attributes.get("class") or "").split() for tag, attributes in page.elements if tag == "table"]
    assert 0 < sum("open" in names for names in classes) < len(classes)
    assert re.search(r"@media screen and \(max-width: 40rem\) \{\s+\.open", html)


def test_the_report_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    write_events(tmp_path, make_events(rounds=1, clients=1))
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert (
        write_report(tmp_path, tmp_path / "deep" / "other.html").read_bytes()
        == (tmp_path / "report.html").read_bytes()
    )


def test_equal_events_give_equal_reports(tmp_path: Path) -> None:
    assert report(tmp_path / "a", make_events(clients=1)) == report(tmp_path / "b", make_events(clients=1))


def test_a_folder_without_events_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(H2TuneError, match=r"events\.jsonl.*Give the folder of a run"):
        write_report(tmp_path)


def test_every_section_has_charts_or_tables(html: str) -> None:
    parts = {re.findall(r'id="([a-z]+)"', part)[0]: part for part in html.split("<section")[1:]}
    assert list(parts) == ["problems", "results", "compare", *KEYS[1:]]
    for key, part in parts.items():
        assert "<table" in part or "<svg" in part, key
    for key in ("compare", "accuracy", "loss", "movement", "relation", "coverage", "bytes"):
        assert part_titles(parts[key]) >= {"films", "news", "feed"}, key


def part_titles(part: str) -> set[str]:
    return set(re.findall(r"<figure>\s*<h3>(.*?)</h3>", part))


def test_tags_are_closed_and_ids_are_unique(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert targets == {f"#{key}" for key in ("compare", *KEYS)}


def test_the_page_asks_no_network_for_anything(html: str) -> None:
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"}
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "style", "xlink:href", "action"}, tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html
    assert "@import" not in html


def test_the_policy_allows_the_style_sheet_alone(html: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(style) == 1
    checksum = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'"
    assert html.index("Content-Security-Policy") < html.index("<style>")


def hostile(value: Any, text: str) -> Any:
    """Return events with `text` in place of every text but the names of events, stages and units."""
    if isinstance(value, dict):
        kept = ("event", "stage", "unit", "split")
        return {key: item if key in kept else hostile(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return f"{value}{text}" if isinstance(value, str) else value


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "]]>--><!--"]
)
def test_text_of_events_stays_text(tmp_path: Path, text: str) -> None:
    events = hostile(with_comparison(with_problems(make_events(rounds=2, clients=2))), text)
    for event in events:
        for key in ("change_by_role", "moved"):
            if key in event:
                event[key] = {f"{name}{text}": value for name, value in event[key].items()}
        for loss in event.get("losses", ()):
            loss["phase"] = "joint" + text
    html = report(tmp_path, events)
    page = Page(html)
    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.row("results", "films")[0].startswith("films" + text)
    assert list(charts(html))


def test_charts_are_xml_that_describes_itself(html: str) -> None:
    found = [root for root in charts(html) if root.get("role") == "img"]
    assert len(found) >= 20
    for root in found:
        title, description = root[0], root[1]
        assert (title.tag, description.tag) == ("title", "desc")
        assert title.text and description.text
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        for element in root.iter():
            for value in element.attrib.values():
                assert "nan" not in value.split() and "inf" not in value.split()


def test_problems_come_first_with_their_rounds(html: str) -> None:
    page = Page(html)
    rows = page.rows["problems"]
    assert ["news", "2", "the loss became nan in step 7 (specific phase)"] in rows
    assert ["films", "1–2", "no scores parameter changed in this rounddid_not_move"] in rows
    assert ["server", "2", "what is shared did not change in this roundaggregate_unchanged"] in rows
    assert html.index('id="problems"') < html.index('class="tiles"') < html.index('id="results"')
    assert re.search(r"1 failure\s*and\s*3 warnings", re.sub("<[^>]*>", "", html))


def test_what_happened_to_several_clients_is_one_row(tmp_path: Path) -> None:
    events = make_events(rounds=1)
    events[1:1] = [
        {
            "event": "warning",
            "client": name,
            "round": 0,
            "code": "did_not_move",
            "message": "stuck",
            "unit": name,
        }
        for name in ("films", "news", "")
    ]
    rows = Page(report(tmp_path, events)).rows["problems"][1:]
    assert rows == [
        ["2 clientsfilms, news", "1", "stuckdid_not_move"],
        ["server", "1", "stuckdid_not_move"],
    ]


def test_without_problems_there_is_no_such_section(tmp_path: Path) -> None:
    assert 'id="problems"' not in report(tmp_path, make_events(rounds=1))


def test_the_page_of_a_large_run_stays_small(tmp_path: Path) -> None:
    html = report(tmp_path, make_events(rounds=20, clients=10, steps=30))
    assert len(html.encode()) < 1_250_000
    assert "each point is the mean of up to 3 steps" in html


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_a_run_in_progress_says_so(tmp_path: Path, count: int) -> None:
    html = report(tmp_path, make_events()[:count])
    assert f"not finished: {int(count > 9)} of 3 rounds aggregated" in html
    assert [k for k in KEYS if f'id="{k}"' in html] == list(KEYS)


@pytest.mark.parametrize("events", [[], [{"event": "run_started"}], [{"event": "not_known_yet", "time": 1}]])
def test_nearly_nothing_is_a_page_too(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    page = Page(report(tmp_path, events))
    assert page.open == []


@pytest.mark.parametrize(
    "kind",
    ["run_started", "evaluated", "client_trained", "aggregated", "run_finished", "warning", "client_failed"],
)
def test_every_kind_of_event_may_be_missing(tmp_path: Path, kind: str) -> None:
    events = [e for e in with_problems(make_events(rounds=2, clients=2, alone=False)) if e["event"] != kind]
    html = report(tmp_path, events)
    assert [k for k in KEYS if f'id="{k}"' in html] == list(KEYS)
