"""Yes/no questions about a passage of Wikipedia (BoolQ, Clark et al. 2019).

BoolQ's development set is the test set: the answers to its own test questions are not public. Of several questions
about one passage only one is used, so that no passage is in both training and test.
"""

from __future__ import annotations

from h2tune.assets import DATASETS, fetch
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.prompts import filled, labelled
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.task import Example, Pools, Task

TASKS = {
    "boolq": Task(
        name="boolq",
        kind="label",
        labels=("no", "yes"),
        verbalisers=(" no", " yes"),
        template="Passage: {passage}\nQuestion: {question}?\nAnswer (yes or no):",
        source=DATASETS["boolq"].source,
        license=DATASETS["boolq"].license,
        scorer="label",
        max_length=256,
    )
}


def read(task: Task) -> Pools:
    """Return the questions; they are fetched if they are not in the cache."""
    folder = fetch(task.name)
    held_out = {row["question"] for _, row in read_rows(folder / "dev.jsonl")}
    rows = [row for _, row in read_rows(folder / "combined.jsonl") if "label" in row]
    rows.sort(key=lambda row: row["question"] not in held_out)  # of two near duplicates the first is used
    pools: dict[bool, list[Example]] = {True: [], False: []}
    for index in without_near_duplicates([row["passage"] for row in rows]):
        row = rows[index]
        pools[row["question"] in held_out].append(
            _example(task, row["passage"], row["question"], row["label"])
        )
    return Pools(train=pools[False], test=pools[True])


def _example(task: Task, passage: str, question: str, answer: bool) -> Example:
    row = {"passage": " ".join(passage.split()), "question": " ".join(question.split())}
    return labelled(task, row, int(answer), filled("{question}?\n{passage}", row))
