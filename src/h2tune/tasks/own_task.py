"""What tasks over the user's own files have in common: the files, how they are read, and how long answers may be."""

from __future__ import annotations

import codecs
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from h2tune.errors import H2TuneError
from h2tune.own_code import absolute_reference, is_reference
from h2tune.tasks.hub import HubSplit, is_folder
from h2tune.tasks.sources import Placed, Source, rows_of
from h2tune.tasks.task import Example, Pools, Task

LEAST_NEW_TOKENS, MOST_NEW_TOKENS = 16, 512
"""Bounds of the tokens of a free answer, where the task does not say."""
OF_DATASET = ("config", "split", "validation_split", "test_split", "revision", "rows")
"""Keys that go with `dataset`."""
CHECKED = 1_000
"""Rows of a file that are checked before heavy libraries are imported."""


class OwnTask(BaseModel, ABC):
    """A task over the user's own files, as a table in the federation file; each field describes its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None = Field(
        default=None,
        description="JSON Lines, CSV, TSV or Parquet file with rows to train on, or `module:function`; the other "
        "splits are taken from it unless they have files of their own.",
    )
    validation_file: str | None = Field(default=None, description="File with rows to validate on.")
    test_file: str | None = Field(default=None, description="File with rows to test on.")
    dataset: str | None = Field(
        default=None, description="Instead of `file`: a data set of the Hugging Face Hub, or a folder of one."
    )
    config: str | None = Field(default=None, description="Its configuration, where it has several.")
    split: str | None = Field(default=None, description="Its split to train on; `train` if left out.")
    validation_split: str | None = Field(default=None, description="Its split to validate on.")
    test_split: str | None = Field(default=None, description="Its split to test on.")
    revision: str | None = Field(
        default=None,
        description="Its commit, branch or tag; a run writes the commit that it read into its `config.toml`.",
    )
    rows: int | None = Field(
        default=None,
        ge=1,
        description="Most rows that are read of each split, from the first, streamed; all if left out.",
    )
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
            "a".encode(value)  # refuses codecs that are not of text
            return codecs.lookup(value).name
        except (LookupError, UnicodeError):
            raise ValueError(f"no encoding '{value}'; utf-8 and cp1252 are common ones") from None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.file is None and self.dataset is None:
            raise ValueError(
                "'file' is missing: the file with rows to train on; or 'dataset', a data set of the Hub"
            )
        files = ("file", "validation_file", "test_file")
        if self.dataset is None:
            if stray := [key for key in OF_DATASET if getattr(self, key) is not None]:
                raise ValueError(f"'{stray[0]}' goes with dataset; leave it out, or name a dataset")
        elif stray := [key for key in files if getattr(self, key) is not None]:
            raise ValueError(f"'{stray[0]}' does not go with dataset; leave one of the two out")
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """Where the rows of each split come from, without splits that are taken from the training rows."""
        data, split = self.dataset, self.split or "train"
        if data is None:
            places: dict[str, Source | None] = {
                "train": self.file,
                "validation": self.validation_file,
                "test": self.test_file,
            }
        else:
            names = {"train": split, "validation": self.validation_split, "test": self.test_split}
            places = {
                key: None if name is None else HubSplit(data, name, self.config, self.revision, self.rows)
                for key, name in names.items()
            }
        return {key: place for key, place in places.items() if place is not None}

    @property
    def files(self) -> dict[str, str]:
        """Paths and `module:object` by key, without those that are left out."""
        keys = ("file", "validation_file", "test_file")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}

    def placed(self, folder: Path) -> Self:
        """Return the same task with every path absolute; relative ones start from `folder`."""
        update = {
            key: absolute_reference(path, folder)
            if is_reference(path)
            else str(folder / Path(path).expanduser())
            for key, path in self.files.items()
        }
        if self.dataset and (is_folder(self.dataset) or (folder / self.dataset).is_dir()):
            update["dataset"] = str(folder / Path(self.dataset).expanduser())
        return self.model_copy(update=update)

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
        pools = {split: self._examples(source, base) for split, source in self.sources.items()}
        return Pools(train=pools["train"], validation=pools.get("validation"), test=pools.get("test"))

    def check(self, base: Path | None = None) -> None:
        """Check that the files are there, and the first rows of each.

        Raises:
            H2TuneError: A file is missing or malformed, or one of these rows is; names the file and the line.
        """
        for source in self.sources.values():
            rows = itertools.islice(rows_of(source, self.encoding, base, stream=True), CHECKED)
            self._all(rows, source)

    def _examples(self, source: Source, base: Path | None) -> list[Example]:
        return self._all(rows_of(source, self.encoding, base), source)

    def _all(self, rows: Iterable[Placed], source: Source) -> list[Example]:
        examples = [self.example(row, where) for where, row in rows]
        if not examples:
            raise H2TuneError("has no rows", where=source if isinstance(source, str) else source.place)
        return examples
