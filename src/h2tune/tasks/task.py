"""What a task is.

To add a built-in task, write one file in this folder that has

* `TASKS: dict[str, Task]`, the tasks it defines (module level, nothing loaded), and
* `read(task: Task) -> Pools`, which loads the examples (imports of heavy libraries inside it),

and name it in `h2tune.tasks.MODULES`, one line for each task. `prompts.fill` makes a prompt from a template
and a row; `load` deals with duplicates and splits, so `read` returns all it has, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Args:
        prompt: What a decoder reads: the template filled with the row.
        answer: What it should go on with; a leading space is part of it.
        label: Index of the answer in the task's labels; None in a task of kind "generate".
        text: What an encoder reads: the text without the template.
    """

    prompt: str
    answer: str
    label: int | None
    text: str


@dataclass(frozen=True)
class Splits:
    """Disjoint examples to train on, to choose by and to report."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


@dataclass(frozen=True)
class Pools:
    """All examples of a task; a pool that is None is taken out of `train`."""

    train: Sequence[Example]
    validation: Sequence[Example] | None = None
    test: Sequence[Example] | None = None


@dataclass(frozen=True)
class Task:
    """What is asked and how answers are scored.

    Args:
        name: Name in a federation file, or the file's name without its ending.
        kind: "label" (one of a set) or "generate" (free text).
        labels: Names of the labels; empty for "generate".
        verbalisers: What a decoder says for each label, leading space kept, such as " positive".
        template: Prompt over the fields of a row, such as "Review: {text}\\nSentiment:".
        source: Where the data come from, one line.
        license: Under which terms, one line.
        scorer: "label", "number", "option", "program" or "word".
        max_length: Tokens of a prompt that are kept; see `prompts.shorten`.
        one_shot: Put before the prompt when scoring.
    """

    name: str
    kind: Literal["label", "generate"]
    labels: tuple[str, ...]
    verbalisers: tuple[str, ...]
    template: str
    source: str
    license: str
    scorer: str
    max_length: int
    one_shot: str = ""
