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
    """A task over the user's own file, as a table in the federation file.

    Args:
        file: Rows to train on; the other splits are taken out of it unless they have files of their own.
        validation_file: Rows to choose by.
        test_file: Rows to report.
        prompt: What a decoder reads, such as `"Question: {question}\\nAnswer:"`.
        text: What an encoder reads, such as `"{question}"`; the fields of `prompt`, one a line, if left out.
        answer: Name of the field with the answer.
        labels: All values that the answer can have, for a choice among them; or a table from each value to
            what a decoder is to say for it, leading space included. Left out, answers are free text.
        scorer: How answers are scored; "label" if there are labels, else "word".
        max_length: Tokens of a prompt that are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    validation_file: str | None = None
    test_file: str | None = None
    prompt: str
    text: str | None = None
    answer: str
    labels: tuple[str, ...] | dict[str, str] | None = None
    scorer: Literal["label", "number", "option", "program", "word"] | None = None
    max_length: int = Field(default=256, ge=1)

    @field_validator("labels", mode="before")
    @classmethod
    def _label_names(cls, value: Any) -> Any:
        return tuple(_as_text(label) for label in value) if isinstance(value, list | tuple) else value

    @field_validator("prompt", "text")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        try:
            if value is not None and not fields(value):
                raise ValueError('a template names at least one field, as in "{question}"')
        except H2TuneError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> FileTask:
        if self.labels is None:
            if self.scorer == "label":
                raise ValueError('scorer = "label" needs labels')
            return self
        if self.scorer not in (None, "label"):
            raise ValueError(f'with labels the scorer is "label", not "{self.scorer}"')
        verbalisers = self._verbalisers()
        if len(set(self.labels)) < 2 or len(set(verbalisers)) < len(verbalisers) or not all(verbalisers):
            raise ValueError("labels are two or more different values, with different words for them")
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
