"""Where rows come from: a file, a function of the user's own, or a split of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from h2tune import own_code
from h2tune.errors import H2TuneError
from h2tune.tasks.hub import HubSplit, split_rows
from h2tune.tasks.row_files import read_rows

Placed = tuple[str, Mapping[str, Any]]
"""Where a row stands, for errors, and the row."""


Source = str | HubSplit
"""A file, `module:function`, or a split."""


def title(source: Source) -> str:
    """Return the name of a source: that of its file without ending, of its function, or of its data set."""
    if isinstance(source, HubSplit):
        return Path(source.dataset).name
    return source.rpartition(":")[2] if own_code.is_reference(source) else Path(source).stem


def rows_of(
    source: Source, encoding: str, base: Path | None = None, *, stream: bool = False
) -> Iterator[Placed]:
    """Yield the rows of a source, one at a time.

    Args:
        source: A file, `module:function`, or a split.
        encoding: Encoding of the file.
        base: Folder from which a relative path starts.
        stream: Of a data set, download no more than what is read.

    Raises:
        H2TuneError: It is missing or malformed; names the place.
    """
    if isinstance(source, HubSplit):
        yield from split_rows(source, stream=stream)
        return
    if own_code.is_reference(source):
        yield from _own_rows(source)
        return
    path = (base or Path()) / Path(source).expanduser()
    for line, row in read_rows(path, encoding):
        yield f"{path}:{line}", row


def _own_rows(reference: str) -> Iterator[Placed]:
    name = own_code.short(reference)
    function = own_code.load(reference, "task.file")
    if not callable(function):
        raise H2TuneError("is no function", where=name, remedy="Name a function that returns rows")
    returned = function()
    try:
        rows = iter(returned)
    except TypeError:
        raise H2TuneError(
            f"returned {type(returned).__name__}, not rows", where=name, remedy="Return a list of dicts"
        ) from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise H2TuneError(
                f"is {type(row).__name__}, not a row",
                where=f"{name}, row {number}",
                remedy="Return dicts; of a DataFrame, frame.to_dict(orient='records')",
            )
        yield f"{name}, row {number}", row
