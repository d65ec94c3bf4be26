"""Sentiment of sentences from film reviews (Hutto and Gilbert 2014)."""

from __future__ import annotations

import html
from pathlib import Path

from h2tune.assets import DATASETS, fetch
from h2tune.errors import H2TuneError
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import labelled
from h2tune.tasks.task import Example, Pools, Task

LABELS = ("negative", "positive")
CLEAR = 0.8  # on a scale from −4 to 4: texts rated between −0.8 and 0.8 are neutral, and left out


def sentiment_task(name: str, template: str) -> Task:
    """Return a sentiment task; the tasks of these files differ in name and template alone."""
    return Task(
        name=name,
        kind="label",
        labels=LABELS,
        verbalisers=tuple(f" {label}" for label in LABELS),
        template=template,
        source=DATASETS[name].source,
        license=DATASETS[name].license,
        scorer="label",
        max_length=64,
    )


TASKS = {"movie_reviews": sentiment_task("movie_reviews", "Review: {text}\nSentiment:")}


def read(task: Task) -> Pools:
    """Return the sentences; they are fetched if they are not in the cache."""
    return Pools(train=rated_texts(task, fetch(task.name) / "rows.tsv"))


def rated_texts(task: Task, path: Path) -> list[Example]:
    """Return the clearly positive and negative texts of a file with lines `number, mean rating, text`.

    Raises:
        H2TuneError: The file is malformed.
    """
    rated = []
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip().split("\n"), start=1):
        try:
            _, rating, text = line.split("\t")
            rated.append((float(rating), html.unescape(" ".join(text.split()))))
        except ValueError:
            raise H2TuneError(
                "is not a line of a number, a rating and a text",
                where=f"{path}:{number}",
                remedy=f"Delete {path.parent} and fetch {task.name} again",
            ) from None
    clear = [(rating, text) for rating, text in rated if abs(rating) > CLEAR]
    kept = without_near_duplicates([text for _, text in clear])
    return [_example(task, *clear[index]) for index in kept]


def _example(task: Task, rating: float, text: str) -> Example:
    label = int(rating > 0)
    return labelled(task, {"text": text}, label, text)
