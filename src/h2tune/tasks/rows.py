"""The user's own task: rows of a JSON Lines, CSV or TSV file, and templates over their fields."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from h2tune.errors import H2TuneError, nearest
from h2tune.tasks.prompts import fields, fill
from h2tune.tasks.task import Example, Pools, Task

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")


class FileTask(BaseModel):
    """A task over the user's own file, as a table in the federation file; each key's sentence is in its field."""

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
    max_length: int = Field(
        default=256,
        ge=1,
        description="Tokens of a prompt that are kept: the fields are cut, not the template.",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _label_names(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = tuple(_as_text(label) for label in value)
        elif value is not None and not isinstance(value, dict):
            raise ValueError("must be a list of answers, or a table from each answer to the words for it")
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
                "must be two or more different answers; name all that the data have, or leave labels out for free text"
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
        """Return what `describe_task` returns; the file is not read."""
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
        )

    def read(self, base: Path | None = None) -> Pools:
        """Read the files; relative paths start from `base`.

        Raises:
            H2TuneError: A file is missing or malformed; the file and the line are named.
        """
        return Pools(
            train=self._examples(self.file, base),
            validation=None if self.validation_file is None else self._examples(self.validation_file, base),
            test=None if self.test_file is None else self._examples(self.test_file, base),
        )

    def _examples(self, file: str, base: Path | None) -> list[Example]:
        path = (base or Path()) / Path(file).expanduser()
        examples = [self._example(row, f"{path}:{line}") for line, row in read_rows(path)]
        if not examples:
            raise H2TuneError("has no rows", where=str(path))
        return examples

    def _example(self, row: Mapping[str, Any], where: str) -> Example:
        names = dict.fromkeys((*fields(self.prompt), *fields(self.text or ""), self.answer))
        values = {name: _value(row, name, where) for name in names}
        prompt, answer = fill(self.prompt, values), values[self.answer]
        text = (
            "\n".join(values[name] for name in fields(self.prompt))
            if self.text is None
            else fill(self.text, values)
        )
        if not answer.strip() or not text.strip():
            empty = f"field '{self.answer}'" if text.strip() else "the text"
            raise H2TuneError(f"{empty} is empty", where=where, remedy="Fill it in or leave the row out")
        if self.labels is None:
            # As " positive" follows "Sentiment:": what comes after a prompt brings its own space.
            space = "" if prompt[-1:].isspace() or answer[:1].isspace() else " "
            return Example(prompt, space + answer, None, text)
        labels = list(self.labels)
        if answer not in labels:
            raise H2TuneError(
                f"label '{answer}' in field '{self.answer}' is not one of the task's labels"
                f"{nearest(answer, labels)}",
                where=where,
                remedy=f"The labels are: {', '.join(labels)}",
            )
        label = labels.index(answer)
        return Example(prompt, self._verbalisers()[label], label, text)


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, row) of a JSON Lines, CSV or TSV file; the ending says which.

    Raises:
        H2TuneError: The file is missing, not UTF-8 or malformed.
    """
    ending = path.suffix.lower()
    if ending not in (*LINES, *DELIMITERS):
        raise H2TuneError(
            f"the ending '{ending}' is not known",
            where=str(path),
            remedy=f"Use one of {', '.join((*LINES, *DELIMITERS))}",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise H2TuneError(f"cannot be read ({error.strerror})", where=str(path)) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise H2TuneError(
            f"is not UTF-8 ({error.reason})", where=f"{path}:{line}", remedy="Save the file as UTF-8"
        ) from None
    yield from _json_lines(text, path) if ending in LINES else _table(text, path, DELIMITERS[ending])


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            position = f"{error.msg}, column {error.colno}" if isinstance(error, ValueError) else "too deep"
            raise H2TuneError(
                f"malformed JSON ({position})",
                where=where,
                remedy="JSON Lines has one object on each line",
            ) from None
        if not isinstance(row, dict):
            raise H2TuneError(
                "the line is not an object", where=where, remedy='Write {"field": "value", ...} on each line'
            )
        yield number, row


def _table(text: str, path: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: Sequence[str] | None = None
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                raise H2TuneError(
                    f"has {len(cells)} cells, the header has {len(header)}",
                    where=f"{path}:{number}",
                    remedy="Put a cell that holds the delimiter, a quote or a line break in double quotes",
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise H2TuneError(
            f"malformed {path.suffix[1:].upper()} ({error})", where=f"{path}:{reader.line_num}"
        ) from None


def _value(row: Mapping[str, Any], name: str, where: str) -> str:
    if name not in row:
        known = [str(key) for key in row]
        raise H2TuneError(
            f"no field '{name}'{nearest(name, known)}", where=where, remedy=f"Its fields: {', '.join(known)}"
        )
    value = row[name]
    if value is None or isinstance(value, list | dict):
        found = "null" if value is None else "a list" if isinstance(value, list) else "an object"
        remedy = "The fields in use are text, numbers or true and false"
        raise H2TuneError(f"field '{name}' is {found}", where=where, remedy=remedy)
    return _as_text(value)


def _as_text(value: Any) -> str:
    """Return a value as the file writes it: `true` for True."""
    return value if isinstance(value, str) else json.dumps(value)
