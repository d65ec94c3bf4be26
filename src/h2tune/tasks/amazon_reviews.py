"""Sentiment of sentences from product reviews at Amazon (Hutto and Gilbert 2014)."""

from __future__ import annotations

from h2tune.assets import fetch
from h2tune.tasks.movie_reviews import rated_texts, sentiment_task
from h2tune.tasks.task import Pools, Task

TASKS = {"amazon_reviews": sentiment_task("amazon_reviews", "Review: {text}\nSentiment:")}


def read(task: Task) -> Pools:
    """Return the sentences; they are fetched if they are not in the cache."""
    return Pools(train=rated_texts(task, fetch(task.name) / "rows.tsv"))
