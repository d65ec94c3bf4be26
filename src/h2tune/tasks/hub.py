"""Rows of a data set of the Hugging Face Hub, or of a folder that `datasets` reads. No code of a data set runs."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

COMMIT = re.compile(r"[0-9a-f]{40}")
INSTALL = "Run pip install 'h2tune[hub]'"


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set.

    Args:
        dataset: Its id, or the absolute path of a folder.
        split: Name of the split.
        config: Name of the configuration; None for the only one.
        revision: A commit, branch or tag; None for the newest.
        rows: Number of rows, from the first, which are streamed; None for all.
    """

    dataset: str
    split: str
    config: str | None = None
    revision: str | None = None
    rows: int | None = None

    @property
    def place(self) -> str:
        """What errors call it."""
        return f"{self.dataset}, split '{self.split}'"


def is_folder(dataset: str) -> bool:
    """Return whether a data set is a folder, and not an id of the Hub."""
    return dataset.startswith((".", "/", "~"))


def split_rows(source: HubSplit, *, stream: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a split with their places; labels that are numbered there are given by name.

    Args:
        source: The split.
        stream: Whether to download no more than what is read, also where all rows are wanted.

    Raises:
        H2TuneError: The package datasets is missing, or the split cannot be loaded.
    """
    if is_folder(source.dataset) and not Path(source.dataset).is_dir():
        raise H2TuneError(
            "no such folder", where=source.dataset, remedy="Give a folder with rows, or an id of the Hub"
        )
    remote = not is_folder(source.dataset)
    rows = _loaded(source, streaming=remote and (stream or source.rows is not None))
    names = {name: f.names for name, f in (rows.features or {}).items() if hasattr(f, "int2str")}
    iterator = itertools.islice(iter(rows), source.rows)
    for number in itertools.count(1):
        with _problems(source):
            row = next(iterator, None)
        if row is None:
            return
        named = {
            name: labels[row[name]] if isinstance(row[name], int) and row[name] >= 0 else None
            for name, labels in names.items()
        }
        yield f"{source.place}, row {number}", {**row, **named}


@lru_cache
def newest(dataset: str, revision: str | None) -> str:
    """Return the commit of a data set of the Hub, so that later readings get the same rows.

    Args:
        dataset: Its id.
        revision: A branch or tag; None for the main branch.

    Raises:
        H2TuneError: The Hub cannot be reached, or has no such data set or revision.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(dataset, revision=revision, timeout=30).sha)
    except Exception as error:  # its layers raise many types, from requests to the file system
        raise H2TuneError(
            f"its revision cannot be looked up ({_first_line(error)})",
            where=f"dataset {dataset}",
            remedy="Check its id and the connection, or give a folder; without a connection name a commit that is in "
            "the cache, as revision",
        ) from None


def _loaded(source: HubSplit, *, streaming: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise H2TuneError(
            "the package datasets is not installed", where=source.place, remedy=INSTALL
        ) from None
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with _problems(source):
            return datasets.load_dataset(
                source.dataset,
                source.config,
                split=source.split,
                revision=source.revision,
                streaming=streaming,
            )
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _problems(source: HubSplit) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # as above
        raise H2TuneError(
            f"cannot be loaded ({_first_line(error)})",
            where=source.place,
            remedy="Check dataset, config, split and revision, and the connection",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
