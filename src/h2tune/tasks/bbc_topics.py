"""Topic of BBC articles of 2004 and 2005 (Greene and Cunningham 2006)."""

from __future__ import annotations

import json

from h2tune.assets import DATASETS, fetch
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import labelled
from h2tune.tasks.task import Example, Pools, Task

# Folder of the articles → label; every label is one token for a decoder.
TOPICS = {
    "business": "business",
    "entertainment": "entertainment",
    "politics": "politics",
    "sports": "sport",
    "tech": "tech",
}
READ = 128  # tokens of an article that a model reads, and words in which two articles are compared

TASKS = {
    "bbc_topics": Task(
        name="bbc_topics",
        kind="label",
        labels=tuple(TOPICS.values()),
        verbalisers=tuple(f" {label}" for label in TOPICS.values()),
        template="Article: {text}\nTopic:",
        source=DATASETS["bbc_topics"].source,
        license=DATASETS["bbc_topics"].license,
        scorer="label",
        max_length=READ,
        excerpt=True,
    )
}


def read(task: Task) -> Pools:
    """Return the articles; they are fetched if they are not in the cache."""
    lines = (fetch(task.name) / "rows.jsonl").read_text(encoding="utf-8").rstrip().split("\n")
    rows = [json.loads(line) for line in lines]
    texts = [" ".join(row["text"].split()) for row in rows]
    # Many articles occur twice, with another headline or a few more words.
    kept = without_near_duplicates([" ".join(text.split()[:READ]) for text in texts])
    return Pools(train=[_example(task, rows[index]["topic"], texts[index]) for index in kept])


def _example(task: Task, topic: str, text: str) -> Example:
    label = list(TOPICS).index(topic)
    return labelled(task, {"text": text}, label, text)
