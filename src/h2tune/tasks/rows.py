"""The user's own task: rows of a JSON Lines, CSV or TSV file, and templates with their fields."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from h2tune.errors import H2TuneError, nearest
from h2tune.tasks.prompts import Filled, fields, filled, joined
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.task import Example, Pools, Task

LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 512
"""Bounds of the tokens of a free answer, where the task does not say."""
CHECKED = 20
"""Rows of a file that are checked before it is read."""


class FileTask(BaseModel):
    """A task over the user's own file, as a table in the federation file; each field describes its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(
        description="JSON Lines, CSV or TSV file with rows to train on; the other splits are taken from it unless they "
        "have files of their own."
    )
    validation_file: str | None = Field(default=None, description="File with rows to validate on.")
    test_file: str | None = Field(default=None, description="File with rows to test on.")
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
    scorer: Literal["label", "number", "option", "program", "word"] | None = Field(
        default=None,
        description="How answers are scored; `label` with labels and `word` without if left out; `program` runs them "
        "in a sandbox.",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of a free answer; if left out, as many as the longest answer to train on has "
        "bytes, from 16 to 512.",
    )
    encoding: str = Field(
        default="utf-8", description="Encoding of the files, such as `cp1252` of older spreadsheets."
    )
    max_length: int = Field(
        default=256,
        ge=1,
        description="Most tokens of a prompt: the middle of long fields is left out, not the template.",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            b"a".decode(value)
            return codecs.lookup(value).name
        except (LookupError, UnicodeError):
            raise ValueError(f"no encoding '{value}'; utf-8 and cp1252 are common ones") from None

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

    def describe(self) -> Task:
        """Return the task without reading the file."""
        return Task(
            name=Path(self.file).stem,
            kind="generate" if self.labels is None else "label",
            labels=tuple(self.labels or ()),
            verbalisers=self._verbalisers(),
            template=self.prompt,
            source=self.file,
            license="the user's own file",
            scorer=self.scorer or ("word" if self.labels is None else "label"),
            max_length=self.max_length,
            new_tokens=self.max_new_tokens or MOST_NEW_TOKENS,
        )

    def answer_tokens(self, answers: Iterable[str]) -> int:
        """Return the most tokens of a free answer: one for each byte of the longest one, and one for its end."""
        longest = max((len(answer.encode()) + 1 for answer in answers), default=MOST_NEW_TOKENS)
        return self.max_new_tokens or min(MOST_NEW_TOKENS, max(LEAST_NEW_TOKENS, longest))

    def read(self, base: Path | None = None) -> Pools:
        """Return the examples of the files; relative paths start from `base`.

        Raises:
            H2TuneError: A file is missing or malformed; names the file and the line.
        """
        return Pools(
            train=self._examples(self.file, base),
            validation=None if self.validation_file is None else self._examples(self.validation_file, base),
            test=None if self.test_file is None else self._examples(self.test_file, base),
        )

    def check(self, base: Path | None = None) -> None:
        """Check that the files are there, and the first rows of each.

        Raises:
            H2TuneError: A file is missing or malformed, or one of these rows is; names the file and the line.
        """
        for file in (self.file, self.validation_file, self.test_file):
            if file is not None:
                path = (base or Path()) / Path(file).expanduser()
                for line, row in itertools.islice(read_rows(path, self.encoding), CHECKED):
                    self._example(row, f"{path}:{line}")

    def _examples(self, file: str, base: Path | None) -> list[Example]:
        path = (base or Path()) / Path(file).expanduser()
        examples = [self._example(row, f"{path}:{line}") for line, row in read_rows(path, self.encoding)]
        if not examples:
            raise H2TuneError("has no rows", where=str(path))
        return examples

    def _example(self, row: Mapping[str, Any], where: str) -> Example:
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
    for part in (
        [name] if name in row else name.split(".")
    ):  # "meta.text" is the field text of the object meta
        if not isinstance(value, Mapping) or part not in value:
            known = [str(key) for key in value] if isinstance(value, Mapping) else []
            place = f" (of '{name}')" if part != name else ""
            remedy = f"Its fields: {', '.join(known)}" if known else "The field before it is no object"
            raise H2TuneError(f"no field '{part}'{place}{nearest(part, known)}", where=where, remedy=remedy)
        value = value[part]
    if value is None or isinstance(value, list | dict):
        kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
        remedy = "Use a text, a number, true or false"
        raise H2TuneError(f"field '{name}' is {kind}", where=where, remedy=remedy)
    return _as_text(value)


def _as_text(value: Any) -> str:
    """Return a value as JSON writes it: `true` for True."""
    return value if isinstance(value, str) else json.dumps(value)
