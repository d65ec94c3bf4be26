"""Methods by name, and the rows of a comparison from the events of runs."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from h2tune.compare.comparison import Comparison
from h2tune.compare.methods import as_local, parse_methods, reference_of
from h2tune.compare.paper import figure, latex, write_figures
from h2tune.compare.results import RunResult, is_finished, read_result
from h2tune.compare.rows import ALL, Row, rows_of
from h2tune.compare.tables import csv_text, event_of, markdown, terminal_table
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.report import write_report

LOCAL = {"films": [0.70, 0.72, 0.69], "news": [0.80, 0.83, 0.84]}
OURS = {"films": [0.75, 0.76, 0.75], "news": [0.80, 0.82, 0.85]}
FACTS: dict[str, Any] = {"name": "corner", "split": "test", "measure": "accuracy", "reference": "local",
                         "seeds": [0, 1, 2], "settings": {}, "notes": [], "problems": []}  # fmt: skip


def events(accuracy: dict[str, float], alone: dict[str, float] | None = None, rounds: int = 2) -> list[Any]:
    """Return the events of a run: 100 bytes up, 10 down and 2 s of training in each round."""
    log: list[Any] = [
        {"event": "run_started", "rounds": rounds, "clients": [{"name": name} for name in accuracy]}
    ]
    for stage, values in (("trained", accuracy), ("alone", alone or {})):
        for name, value in values.items():
            log.append(
                {"event": "evaluated", "client": name, "round": -1, "stage": "before", "accuracy": 0.1}
            )
            for r in range(rounds):
                log.append({"event": "client_trained", "client": name, "round": r, "stage": stage, "bytes_up": 100,
                             "bytes_down": 10, "seconds": {"load": 9, "train": 2.0, "evaluate": 9}})  # fmt: skip
                score = value if r == rounds - 1 else 0.2
                log.append(
                    {"event": "evaluated", "client": name, "round": r, "stage": stage, "accuracy": score}
                )
    return [*log, {"event": "run_finished", "rounds": rounds}]


def results(accuracy: dict[str, list[float]]) -> dict[int, RunResult]:
    count = len(next(iter(accuracy.values())))
    return {s: read_result(events({c: v[s] for c, v in accuracy.items()}), "trained") for s in range(count)}


def rows(**methods: dict[int, RunResult]) -> dict[tuple[str, str], Row]:
    found = rows_of(methods, "local", ["films", "news"], {}, 0)
    return {(row.method, row.client): row for row in found}


def test_methods_are_strategies_ablations_and_either_with_settings():
    methods = parse_methods(["local", "h2tune-joint", "fedit+train.learning_rate=1e+3+server.rounds=4"])
    assert [m.label for m in methods] == [m.text for m in methods]  # no table leaves out what was changed
    assert [m.strategy for m in methods] == ["local", "h2tune", "fedit"]
    assert methods[1].changes == ("experimental.alternation=joint",)
    assert methods[2].changes == ("train.learning_rate=1e+3", "server.rounds=4")


def test_a_method_of_ones_own_keeps_what_was_changed_in_its_label():
    methods = parse_methods(["code/mine.py:Mean", "code/mine.py:Mean+train.x=1"])
    assert [m.label for m in methods] == ["mine:Mean", "mine:Mean+train.x=1"]


def test_training_alone_is_read_from_the_runs_of_h2tune_with_the_same_settings():
    methods = parse_methods(["h2tune+train.x=1", "h2tune-alone+train.x=1", "h2tune-alone", "h2tune"])
    assert [m.folder for m in methods] == ["h2tune+train.x=1", "h2tune+train.x=1", "h2tune", "h2tune"]
    assert [m.stage for m in methods] == ["trained", "alone", "alone", "trained"]
    assert [m.label for m in methods] == [m.text for m in methods]  # names alone would not be unique


def test_folders_are_safe_and_differ_between_methods():
    one, two = parse_methods(['fedit+train.scheduler="a/b"', 'fedit+train.scheduler="a b"'])
    assert one.folder != two.folder and not set('/" ') & set(one.folder + two.folder)


@pytest.mark.parametrize("texts", [["fedid"], ["local", "local"], [""]])
def test_methods_that_cannot_be_are_refused(texts):
    with pytest.raises(H2TuneError, match=r"fedit|twice|no methods"):
        parse_methods(texts)


def test_the_reference_is_named_or_local_or_the_first():
    methods = parse_methods(["fedit", "local+train.x=1"])
    assert reference_of(methods, None).label == "local+train.x=1"
    assert reference_of(methods, "fedit").label == "fedit"
    assert reference_of(methods[:1], None).label == "fedit"
    with pytest.raises(H2TuneError, match="did you mean 'fedit'"):
        reference_of(methods, "fedid")


def test_a_result_is_the_last_round_and_the_sum_of_its_cost():
    log = events({"films": 0.7}, {"films": 0.6})
    trained, alone = (read_result(log, stage).clients["films"] for stage in ("trained", "alone"))
    assert (trained.accuracy, trained.bytes_up, trained.bytes_down, trained.seconds) == (0.7, 200, 20, 4.0)
    assert (alone.accuracy, alone.bytes_up, alone.seconds) == (0.6, 0, 4.0)  # a client alone sends nothing
    assert is_finished(log) and not is_finished(log[:-1]) and not is_finished([])


def test_clients_without_a_score_and_failures_are_reported():
    log = events({"films": 0.7, "news": 0.8})
    log = [e for e in log if not (e.get("client") == "news" and e.get("stage") == "trained")]
    log.insert(1, {"event": "client_failed", "client": "news", "round": 0, "reason": "the loss became nan"})
    result = read_result(log, "trained")
    assert set(result.clients) == {"films"}
    assert result.problems == ("news failed in round 1: the loss became nan", "news has no score")


def test_rows_are_paired_by_seed():
    found = rows(local=results(LOCAL), h2tune=results(OURS))
    gap = [b - a for a, b in zip(LOCAL["films"], OURS["films"], strict=True)]
    row = found["h2tune", "films"]
    test = stats.ttest_1samp(gap, 0)
    low, high = test.confidence_interval()
    assert row.difference == pytest.approx(sum(gap) / 3)
    assert (row.difference_low, row.difference_high) == pytest.approx((low, high))
    assert row.p == pytest.approx(test.pvalue)
    assert min(gap) <= row.bootstrap_low <= row.difference <= row.bootstrap_high <= max(gap)
    assert found["local", "films"].difference is None
    mean = found["h2tune", ALL]
    assert mean.mean == pytest.approx(sum(sum(v) for v in OURS.values()) / 6)
    assert mean.p_holm == mean.p  # one comparison on the mean over clients
    assert row.p_holm == pytest.approx(min(1, 2 * row.p))  # the smaller of two on single clients


def test_only_seeds_that_both_have_are_paired():
    ours = {s: r for s, r in results(OURS).items() if s != 1}
    row = rows(local=results(LOCAL), h2tune=ours)["h2tune", "films"]
    assert row.seeds == 2 and row.difference == pytest.approx((0.05 + 0.06) / 2)


def test_a_table_says_which_methods_have_fewer_seeds():
    whole, ours = results(LOCAL), {s: r for s, r in results(OURS).items() if s != 1}
    assert "0, 1, 2, fewer of h2tune 2." in markdown(list(rows(local=whole, h2tune=ours).values()), FACTS)
    assert "0, 1, 2 for every method." in markdown(list(rows(local=whole, fedit=whole).values()), FACTS)


def test_one_seed_has_no_interval():
    one = {c: v[:1] for c, v in LOCAL.items()}
    found = rows(local=results(one), h2tune=results({c: v[:1] for c, v in OURS.items()}))
    row = found["h2tune", ALL]
    assert row.difference == pytest.approx(0.025)
    assert row.low is row.difference_low is row.bootstrap_high is row.p is row.p_holm is None
    text = markdown(list(found.values()), FACTS | {"seeds": [0]})
    assert "One seed: no interval" in text


def test_a_mean_needs_all_clients_and_a_method_without_results_has_no_row():
    log = events({"films": 0.7, "news": 0.8})
    log = [e for e in log if not (e.get("client") == "news" and e["event"] == "evaluated")]
    found = rows(local=results(LOCAL), h2tune={0: read_result(log, "trained")}, fedit={})
    assert ("h2tune", ALL) not in found and ("h2tune", "films") in found
    assert not [key for key in found if key[0] == "fedit"]


def test_tables_hold_every_row_and_what_failed(tmp_path: Path):
    found = list(rows(local=results(LOCAL), h2tune=results(OURS)).values())
    problem = {"method": "flora", "seed": 0, "reason": "no rank | fits"}
    facts = FACTS | {"problems": [problem], "settings": {"h2tune": ["train.learning_rate=3e-4"]}}
    text = markdown(found, facts)
    assert "flora, seed 0: no rank \\| fits" in text and "h2tune: train.learning_rate=3e-4" in text
    assert text.count("| h2tune |") == 3
    read = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert [float(line["mean"]) for line in read] == [row.mean for row in found]
    assert all(line["difference"] == "" for line in read if line["method"] == "local")
    line = event_of(found, facts, "0.1.0", 0.0)
    assert not [v for row in json.loads(line)["rows"] for v in row.values() if v in (math.inf, -math.inf)]
    (tmp_path / "events.jsonl").write_text(line)
    page = write_report(tmp_path).read_text()
    assert "Comparison of methods" in page and "2 methods · 3 seeds · test split" in page
    assert "no rank | fits" in page and "Training loss" not in page


NAME = "fedit+train.learning_rate=3e-4+adapter.alpha=32"


def test_the_table_of_the_terminal_fits_80_columns_and_drops_no_key():
    found = list(rows(local=results(LOCAL), **{NAME: results(OURS)}).values())
    stream = io.StringIO()
    Console(file=stream, width=80).print(terminal_table(found, FACTS))
    assert max(map(len, stream.getvalue().splitlines())) <= 80 and "…" not in stream.getvalue()
    first = [line.split("│")[1].strip() for line in stream.getvalue().splitlines() if line.startswith("│")]
    assert NAME in "".join(first)
    assert "difference to local" in stream.getvalue()


def test_a_comparison_for_a_paper(tmp_path: Path):
    found = list(rows(local=results(LOCAL), **{NAME: results(OURS), "100_%": results(OURS)}).values())
    table = latex(found, FACTS)
    assert r"fedit+train.learning\_rate=3e-4+adapter.alpha=32 &" in table and r"100\_\% &" in table
    assert table.count(r"\\") == 1 + 3 + 9 and table.count("&") == 3 * (1 + 9)
    assert table.isascii() and r"\toprule" in table
    write_figures(tmp_path, found, "local")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{n}.{e}" for n in ("client-films", "client-news", "mean") for e in ("pdf", "svg")]
    assert (tmp_path / "mean.pdf").read_bytes().startswith(b"%PDF")
    methods = [mark["method"] for mark in figure(found[:3], "local")["layer"][2]["data"]["values"]]
    assert methods == ["local", NAME, "100_%"]


def test_the_page_says_what_ran(tmp_path: Path):
    found = list(rows(local=results(LOCAL), h2tune=results(OURS)).values())
    facts = FACTS | {
        "federation": {"server.rounds": "3"}, "environment": {"torch": "2.9", "threads": "4"},
        "members": [{"name": "films", "model": "pypi:x", "task": "movie_reviews", "rank": "8"}],
    }  # fmt: skip
    (tmp_path / "events.jsonl").write_text(event_of(found, facts, "0.1.0", 0.0))
    page = write_report(tmp_path).read_text()
    assert all(text in page for text in ("server.rounds", "pypi:x", "threads", "2.9"))


def test_scoring_the_last_round_alone_needs_everyone_in_it():
    client = {"name": "films", "model": "m", "task": "movie_reviews"}
    content = {"name": "f", "client": [client], "experimental": {"evaluate_rounds": "last"}}
    assert parse(content, "f.toml").experimental.evaluate_rounds == "last"
    with pytest.raises(H2TuneError, match=r"participation = 1"):
        parse(content | {"server": {"participation": 0.5}}, "f.toml")


def test_what_is_scored_by_another_measure_is_not_called_accuracy(tmp_path: Path):
    log = [{**e, "measure": "ROUGE-L"} if e["event"] == "evaluated" else e for e in events({"talk": 0.4})]
    found = Comparison(tmp_path, "talk", "test", "local", parse_methods(["local"]), [0], ["talk"])
    found.results["local"] = {0: read_result(log, "trained")}
    found.write(0.0)
    for name in ("comparison.md", "comparison.tex", "report.html"):
        text = (tmp_path / name).read_text()
        assert "ROUGE-L" in text and "accuracy" not in text.lower(), name


def test_a_method_whose_clients_all_train_as_local_takes_the_runs_of_local():
    fedit, local = parse_methods(["fedit+train.x=1", "local+train.x=1"])
    assert as_local(fedit).folder == local.folder and as_local(fedit).label == "fedit+train.x=1"
