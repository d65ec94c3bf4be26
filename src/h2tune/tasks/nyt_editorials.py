"""Sentiment of sentences from opinion editorials of the New York Times (Hutto and Gilbert 2014)."""

from __future__ import annotations

from h2tune.assets import fetch
from h2tune.tasks.movie_reviews import rated_texts, sentiment_task
from h2tune.tasks.task import Pools, Task

TASKS = {"nyt_editorials": sentiment_task("nyt_editorials", "Editorial: {text}\nSentiment:")}


def read(task: Task) -> Pools:
    """Return the sentences; they are fetched if they are not in the cache."""
    return Pools(train=rated_texts(task, fetch(task.name) / "rows.tsv"))
