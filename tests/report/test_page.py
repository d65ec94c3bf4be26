from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from helpers.report_events import make_events, with_comparison, with_problems, write_events

from h2tune.compare.results import read_result
from h2tune.errors import H2TuneError
from h2tune.report import formats, write_report
from h2tune.report.charts import theme
from h2tune.report.intervals import difference, mean_difference, wilson
from h2tune.report.sections import charted, messages
from h2tune.report.view.traffic import Traffic, traffic_by_client
from h2tune.runs.card import _sent

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


class Page(HTMLParser):
    """Elements of a page with their attributes, cells of its tables by section, and what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section, self.cell = "", False
        self.rows: dict[str, list[list[str]]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[self.section][-1][-1] += data.replace(formats.SPACE, " ")

    def row(self, section: str, name: str) -> list[str]:
        return next(row for row in self.rows[section] if row[0].startswith(name))


def report(folder: Path, events: list[dict[str, Any]]) -> str:
    return write_report(write_events(folder, events)).read_text(encoding="utf-8")


def charts(html: str) -> Iterator[ElementTree.Element]:
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        yield ElementTree.fromstring(svg)


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


def test_the_comparison_is_shown_where_it_was_made(html: str, tmp_path: Path) -> None:
    rows = Page(html).rows["compare"]
    event = with_comparison(make_events())[-1]
    assert rows[0][1] == "difference to h2tune, points"
    assert len(rows) == 1 + len(event["rows"])
    for row, shown in zip(event["rows"], rows[1:], strict=True):
        assert shown[0] == row["method"] + (row["client"] or "mean over clients")
        assert shown[1].startswith(formats.points(row["difference"]))
        assert shown[2].startswith(f"{row['mean'] * 100:.1f} %") and shown[7] == "5"
    assert 'id="compare"' not in report(tmp_path, make_events(rounds=1))


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


def test_the_page_of_a_large_run_stays_small(tmp_path: Path) -> None:
    html = report(tmp_path, make_events(rounds=20, clients=10, steps=30))
    assert len(html.encode()) < 1_250_000
    assert "each point is the mean of up to 3 steps" in html


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


def test_a_comparison_names_its_settings(tmp_path):
    (event,) = with_comparison([])
    event["settings"] = {"local": ["train.learning_rate=0.01"]}
    page = Page(report(tmp_path, [event]))
    assert page.row("setup", "local")[1] == "train.learning_rate=0.01"
    assert page.row("setup", "h2tune")[1] == "as in the federation file"


def test_a_difference_of_few_examples_stands_with_its_interval(tmp_path):
    events = make_events(rounds=1, clients=1, alone=False)
    for event in events:
        if event["event"] == "evaluated":
            event |= {"examples": 10, "accuracy": 0.9 if event["round"] == 0 else 0.5}
    html = report(tmp_path, events)
    low, high = (formats.points(end) for end in difference(0.9, 10, 0.5, 10))
    tile = html[html.index('class="tiles"') : html.index("<nav")]
    assert "+40.0 points" in tile and f"{low} to {high}" in tile
