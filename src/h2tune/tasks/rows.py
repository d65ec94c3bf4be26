"""The user's own task: rows of a JSON Lines, CSV or TSV file, and templates with their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from h2tune.errors import H2TuneError, nearest
from h2tune.own_code import Reference, is_reference
from h2tune.tasks.own_task import MOST_NEW_TOKENS, OwnTask
from h2tune.tasks.prompts import Filled, fields, filled, joined
from h2tune.tasks.sources import title
from h2tune.tasks.task import Example, Task


class FileTask(OwnTask):
    """Rows with a prompt and an answer, as a table in the federation file; each field describes its key."""

    prompt: str = Field(
        description='What a decoder reads, as in `"Question: {question}\\nAnswer:"`; `{name}` is a field of the row.'
    )
    text: str | None = Field(
        default=None,
        description='What an encoder reads, as in `"{question}"`; the fields of `prompt`, one a line, if left out.',
    )
    answer: str = Field(description="Name of the row's field that holds the answer.")
    labels: tuple[str, ...] | dict[str, str] | None = Field(
        default=None,
        description="All answers, for a choice among them, or a table from each answer to the words that a decoder "
        "says for it, leading space included; free text if left out.",
    )
    scorer: (
        Literal["label", "number", "option", "program", "word", "f1", "exact", "rouge", "likelihood"]
        | Reference
        | None
    ) = Field(
        default=None,
        description="How answers are scored; `label` with labels and `word` without if left out; `program` runs them "
        "in a sandbox.",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _label_names(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = tuple(_as_text(label) for label in value)
        elif value is not None and not isinstance(value, dict):
            raise ValueError("must be a list of answers, or a table from each answer to its words")
        for label, words in value.items() if isinstance(value, dict) else ():
            if not isinstance(words, str) or not words:
                raise ValueError(f"the words for '{label}' must be a text that is not empty")
        return value

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if value is None:
            return value
        words = list(value.values()) if isinstance(value, dict) else list(value)
        if len(set(value)) < 2:
            raise ValueError(
                "must be two or more different answers; list all that occur, or leave labels out for free text"
            )
        if len(set(words)) < len(words):
            raise ValueError("two answers have the same words; give each its own")
        return value

    @field_validator("prompt", "text")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        try:
            if value is not None and not fields(value):
                raise ValueError('must name at least one field of the row, as in "{question}"')
        except H2TuneError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> FileTask:
        if self.labels is None and self.scorer == "label":
            raise ValueError('scorer = "label" needs labels; add labels, or leave scorer out')
        if self.labels is not None and self.scorer not in (None, "label"):
            raise ValueError(
                f'scorer = "{self.scorer}" is for free text, but the task has labels; leave one of the two out'
            )
        return self

    def _verbalisers(self) -> tuple[str, ...]:
        if isinstance(self.labels, dict):
            return tuple(self.labels.values())
        return tuple(f" {label}" for label in self.labels or ())

    @property
    def files(self) -> dict[str, str]:
        own = {"scorer": self.scorer} if self.scorer and is_reference(self.scorer) else {}
        return super().files | own

    def describe(self) -> Task:
        """Return the task without reading the file."""
        return Task(
            name=title(self.sources["train"]),
            kind="generate" if self.labels is None else "label",
            labels=tuple(self.labels or ()),
            verbalisers=self._verbalisers(),
            template=self.prompt,
            source=f"rows of {self.dataset or Path(str(self.file)).name}",
            license="that of the client's own file",
            scorer=self.scorer or ("word" if self.labels is None else "label"),
            max_length=self.max_length,
            new_tokens=self.max_new_tokens or MOST_NEW_TOKENS,
        )

    def example(self, row: Mapping[str, Any], where: str) -> Example:
        prompt, text = asked(self.prompt, self.text, row, where)
        answer = _value(row, self.answer, where)
        if not answer.strip() or not text.text.strip():
            empty = f"field '{self.answer}'" if text.text.strip() else "the text"
            raise H2TuneError(f"{empty} is empty", where=where, remedy="Fill it in, or remove the row")
        if self.labels is None:
            # an answer starts with the space that separates it from the prompt, as " positive" after "Sentiment:"
            space = "" if prompt.text[-1:].isspace() or answer[:1].isspace() else " "
            return Example(prompt.text, space + answer, None, text.text, prompt.fields, text.fields)
        labels = list(self.labels)
        if answer not in labels:
            raise H2TuneError(
                f"label '{answer}' in field '{self.answer}' is not one of the task's labels"
                f"{nearest(answer, labels)}",
                where=where,
                remedy=f"The labels are: {', '.join(labels)}",
            )
        label = labels.index(answer)
        words = self._verbalisers()[label]
        return Example(prompt.text, words, label, text.text, prompt.fields, text.fields)

    def question(self, row: Mapping[str, Any], where: str) -> Example:
        return question(self.describe(), self.text, row, where)


def question(task: Task, text: str | None, row: Mapping[str, Any], where: str) -> Example:
    """Return a row of a task without its answer as an example; arguments and errors otherwise as in `asked`."""
    prompt, read = asked(task.template, text, row, where)
    label = 0 if task.labels else None  # it is not read
    return Example(prompt.text, "", label, read.text, prompt.fields, read.fields)


def asked(template: str, text: str | None, row: Mapping[str, Any], where: str) -> tuple[Filled, Filled]:
    """Return what a decoder and what an encoder reads of a row.

    Args:
        template: The task's template.
        text: Template of what an encoder reads; None for the fields of `template`, one a line.
        row: The row.
        where: Its place, for errors.

    Raises:
        H2TuneError: The row lacks a field, or it is no text.
    """
    values = {
        name: _value(row, name, where) for name in dict.fromkeys((*fields(template), *fields(text or "")))
    }
    plain = joined([values[name] for name in fields(template)]) if text is None else filled(text, values)
    return filled(template, values), plain


def _value(row: Mapping[str, Any], name: str, where: str) -> str:
    value: Any = row
    # "meta.text" is the field text of the object meta
    for part in [name] if name in row else name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = [str(key) for key in value] if isinstance(value, Mapping) else []
            place = f" (of '{name}')" if part != name else ""
            remedy = f"Its fields: {', '.join(known)}" if known else "The field before it is no object"
            raise H2TuneError(f"no field '{part}'{place}{nearest(part, known)}", where=where, remedy=remedy)
        value = value[part]
    if not isinstance(value, str | int | float) or value != value:
        kinds = {type(None): "null", list: "a list", dict: "an object", float: "NaN"}
        kind = kinds.get(type(value), f"of the type {type(value).__name__}")
        remedy = "Use a text, a number, true or false"
        raise H2TuneError(f"field '{name}' is {kind}", where=where, remedy=remedy)
    return _as_text(value)


def _as_text(value: Any) -> str:
    """Return a value as JSON writes it: `true` for True."""
    return value if isinstance(value, str) else json.dumps(value)
