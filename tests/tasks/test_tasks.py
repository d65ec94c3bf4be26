"""Built-in tasks: their descriptions, and reading the demo data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from h2tune.errors import H2TuneError
from h2tune.tasks import MODULES, bbc_topics, movie_reviews
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.load import describe_task
from h2tune.tasks.prompts import fields


def test_built_in_tasks_describe_themselves_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2TUNE_CACHE", "/nonexistent")
    for name in ("movie_reviews", "tweets", "bbc_topics"):
        task = describe_task(name)
        assert task.name == name and name in MODULES
        assert len(task.labels) == len(task.verbalisers) and task.source and task.license
        assert all(word.startswith(" ") for word in task.verbalisers)
        assert fields(task.template) == ("text",)


def test_unknown_task_gets_a_suggestion_or_a_recipe() -> None:
    with pytest.raises(H2TuneError, match="did you mean 'movie_reviews'"):
        describe_task("movie_review")
    with pytest.raises(H2TuneError, match=r"task = \{ file ="):
        describe_task("data/rows.jsonl")


def test_rated_texts(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text(
        "1\t2.5\tA fine film about a dog &amp; a cat.\r\n2\t-0.8\tNeither\r\n3\t-1.0\tDull\u2028stuff\r\n"
        "4\t2.5\tA fine film about a dog, a cat!\r\n",
        encoding="utf-8",
        newline="",
    )
    task = describe_task("movie_reviews")
    found = movie_reviews.rated_texts(task, file)
    assert [(e.text, e.answer, e.label) for e in found] == [
        ("A fine film about a dog & a cat.", " positive", 1),
        ("Dull stuff", " negative", 0),
    ]
    file.write_text("1\tx\tA\n", encoding="utf-8")
    with pytest.raises(H2TuneError, match=r"rows\.tsv:1"):
        movie_reviews.rated_texts(task, file)


def test_bbc_topics_reads_articles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "Chelsea have won the cup after a long final against their old rivals."
    rows = [
        {"topic": "sports", "number": "001", "text": f"Chelsea win\n\n{body}"},
        {"topic": "sports", "number": "002", "text": f"A win for Chelsea\n\n{body}"},
        {"topic": "tech", "number": "001", "text": "New chip"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(bbc_topics, "fetch", lambda name: tmp_path)
    found = bbc_topics.read(describe_task("bbc_topics")).train
    assert [(e.text, e.answer, e.label) for e in found] == [
        (f"Chelsea win {body}", " sport", 3),
        ("New chip", " tech", 4),
    ]
    assert found[1].prompt == "Article: New chip\nTopic:"


def test_near_duplicates() -> None:
    texts = [
        "Yay. Another good phone interview.",
        "the cat sat on the mat today",
        "YAY!! Another good phone interview :)",
        "the cat sat on the sofa yesterday and slept",
        "",
        "!!",
    ]
    assert without_near_duplicates(texts) == [0, 1, 4]
    assert without_near_duplicates(texts, share=0.9) == [0, 1, 3, 4]
