"""What tasks over the user's own files have in common: the files, how they are read, and how long answers may be."""

from __future__ import annotations

import codecs
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from h2tune.errors import H2TuneError
from h2tune.own_code import absolute_reference, is_reference
from h2tune.tasks.sources import rows_of
from h2tune.tasks.task import Example, Pools, Task

LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 512
"""Bounds of the tokens of a free answer, where the task does not say."""
CHECKED = 1_000
"""Rows of a file that are checked before heavy libraries are imported."""


class OwnTask(BaseModel, ABC):
    """A task over the user's own files, as a table in the federation file; each field describes its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(
        description="JSON Lines, CSV or TSV file with rows to train on, or `module:function`; the other splits are "
        "taken from it unless they have files of their own."
    )
    validation_file: str | None = Field(default=None, description="File with rows to validate on.")
    test_file: str | None = Field(default=None, description="File with rows to test on.")
    encoding: str = Field(
        default="utf-8", description="Encoding of the files, such as `cp1252` of older spreadsheets."
    )
    max_length: int = Field(
        default=256,
        ge=1,
        description="Most tokens of a prompt: the middle of long fields is left out, not the template.",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of a free answer; if left out, as many as the longest answer to train on has "
        "bytes, from 16 to 512.",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            b"a".decode(value)
            return codecs.lookup(value).name
        except (LookupError, UnicodeError):
            raise ValueError(f"no encoding '{value}'; utf-8 and cp1252 are common ones") from None

    @property
    def files(self) -> dict[str, str]:
        """Paths and `module:object` by key, without those that are left out."""
        keys = ("file", "validation_file", "test_file")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}

    def placed(self, folder: Path) -> Self:
        """Return the same task with every path absolute; relative ones start from `folder`."""
        return self.model_copy(
            update={
                key: absolute_reference(path, folder)
                if is_reference(path)
                else str(folder / Path(path).expanduser())
                for key, path in self.files.items()
            }
        )

    @abstractmethod
    def describe(self) -> Task:
        """Return the task without reading a file of rows."""

    @abstractmethod
    def example(self, row: Mapping[str, Any], where: str) -> Example:
        """Return the example of a row.

        Args:
            row: The row.
            where: Its place, for errors.

        Raises:
            H2TuneError: Something is missing in it, or of another kind.
        """

    @abstractmethod
    def question(self, row: Mapping[str, Any], where: str) -> Example:
        """Return a row without its answer as an example; arguments and errors as in `example`."""

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
                rows = itertools.islice(rows_of(file, self.encoding, base), CHECKED)
                if not [self.example(row, where) for where, row in rows]:
                    raise H2TuneError("has no rows", where=file)

    def _examples(self, file: str, base: Path | None) -> list[Example]:
        examples = [self.example(row, where) for where, row in rows_of(file, self.encoding, base)]
        if not examples:
            raise H2TuneError("has no rows", where=file)
        return examples
