"""The description of a task, and its examples.

To add a built-in task, write one file in this folder that has

* `TASKS: dict[str, Task]`, the tasks it defines (module level, nothing loaded), and
* `read(task: Task) -> Pools`, which loads the examples (imports of heavy libraries inside it),

and name it in `h2tune.tasks.MODULES`, one line for each task. `prompts.labelled` makes an example from a row; `load`
removes duplicates and makes the splits, so `read` returns all examples, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Spans = tuple[tuple[int, int], ...]
"""(start, end) of parts of a text, in characters."""
Messages = tuple[tuple[str, str], ...]
"""Roles ("system", "user" or "assistant") and contents of a conversation."""


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Args:
        prompt: Input of a decoder: the template filled with the row.
        answer: The correct continuation, including its leading space.
        label: Index of the answer in the task's labels; None in a task of kind "generate".
        text: Input of an encoder: the text without the template.
        fields: Where the values of the template's fields stand in `prompt`; what is too long is cut there.
        text_fields: The same in `text`, where it has several fields; else it is cut at its end.
        messages: The conversation before the answer, in a task with conversations; `prompt` is its plain text then.
    """

    prompt: str
    answer: str
    label: int | None
    text: str
    fields: Spans = field(default=(), compare=False)
    text_fields: Spans = field(default=(), compare=False)
    messages: Messages = ()


@dataclass(frozen=True)
class Splits:
    """Disjoint examples for training, validation and test.

    Args:
        train: Training examples.
        validation: Validation examples.
        test: Test examples.
        unused: Number of examples left to train on that were not asked for.
        repeated: Number of examples left out since their prompt occurs before.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    unused: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Pools:
    """All examples of a task; a pool that is None is split off from `train`."""

    train: Sequence[Example]
    validation: Sequence[Example] | None = None
    test: Sequence[Example] | None = None


@dataclass(frozen=True)
class Task:
    """A task: its prompts and how answers are scored.

    Args:
        name: Name in a federation file, or the file's name without its ending.
        kind: "label" (one of a set) or "generate" (free text).
        labels: Names of the labels; empty for "generate".
        verbalisers: Continuation of a decoder for each label, with its leading space, such as " positive".
        template: Prompt with fields of a row, such as "Review: {text}\\nSentiment:".
        source: Origin of the data, one line.
        license: Licence of the data, one line.
        scorer: "label", or a name in `scoring.scorers.SCORERS`, or "likelihood".
        max_length: Maximal number of tokens of a prompt; see `prompts.shorten`.
        one_shot: A solved problem that precedes the prompt in scoring; "" for none.
        new_tokens: Maximal number of tokens of a free answer.
        excerpt: Whether texts are longer than `max_length` by design, so that cutting them is no fault.
        chat: Whether its examples are conversations.
        chat_template: Its own chat template; "" for the tokenizer's.
        positions: Tokens of prompt and answer together that the client's model can read; None if there is no limit.
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
    new_tokens: int = 512
    excerpt: bool = False
    positions: int | None = None
    chat: bool = False
    chat_template: str = ""
