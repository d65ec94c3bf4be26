"""Read rows from JSON Lines, CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError, counted

DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
"""Ending → delimiters that a table may have; the one with the most cells in its header is taken, the first if equal."""
LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
LARGEST_CELL = 2**27
"""Characters of a cell."""


def read_rows(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, row) of a JSON Lines, CSV, TSV or Parquet file, by the ending of its name.

    Args:
        path: The file.
        encoding: Its encoding, a name that Python knows; a byte order mark of UTF-8 is accepted.

    Raises:
        H2TuneError: The file is missing, of another encoding, or malformed.
    """
    ending = path.suffix.lower()
    if ending == PARQUET:
        yield from _parquet(path)
        return
    if ending not in (*LINES, *DELIMITERS):
        raise H2TuneError(
            f"unknown file ending '{ending}'",
            where=str(path),
            remedy=f"Use one of {', '.join((*LINES, *DELIMITERS, PARQUET))}",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise H2TuneError(
            f"is not {encoding.upper()} ({error.reason})",
            where=f"{path}:{line}",
            remedy='Save the file as UTF-8, or name its encoding in the task, as encoding = "cp1252"',
        ) from None
    yield from _json_lines(text, path) if ending in LINES else _table(text, path, DELIMITERS[ending])


def _unreadable(path: Path, error: OSError) -> H2TuneError:
    remedy = "Check the path; a relative one starts from the folder of the federation file"
    return H2TuneError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy)


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (row number, row), a batch of rows in memory at a time."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise H2TuneError(
            "Parquet needs the package pyarrow", where=str(path), remedy="Run pip install 'h2tune[hub]'"
        ) from None
    try:
        stream = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        with stream:
            batches = parquet.ParquetFile(stream).iter_batches()
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise H2TuneError(
            f"is no Parquet file that can be read ({reason})", where=str(path), remedy="Write it anew"
        ) from None


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line, object_pairs_hook=_once, parse_constant=_no_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            position = f"{error.msg}, column {error.colno}" if isinstance(error, ValueError) else "too deep"
            raise H2TuneError(
                f"malformed JSON ({position})",
                where=where,
                remedy="JSON Lines has one object per line",
            ) from None
        except ValueError as error:
            raise H2TuneError(str(error), where=where, remedy="Correct the row, or remove it") from None
        if not isinstance(row, dict):
            raise H2TuneError(
                "the line is not an object", where=where, remedy='Write {"field": "value", …} on each line'
            )
        yield number, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a key that it has twice, one value would be lost.

    Raises:
        ValueError: It has a key twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field '{next(n for n in names if names.count(n) > 1)}' stands twice in the row")
    return found


def _no_constant(name: str) -> None:
    """Refuse NaN and Infinity, which JSON does not have.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"a field is {name}: no text and no number")


def _table(text: str, path: Path, delimiters: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(LARGEST_CELL)
    delimiter = max(delimiters, key=lambda one: _cells(text, one))
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
                if doubled := [name for name in header if header.count(name) > 1]:
                    raise H2TuneError(
                        f"column '{doubled[0]}' stands twice in the header",
                        where=f"{path}:{number}",
                        remedy="Rename one of the two",
                    )
                continue
            if len(cells) != len(header):
                raise H2TuneError(
                    f"the row has {counted(len(cells), 'cell')}, the header has {len(header)}",
                    where=f"{path}:{number}",
                    remedy="Put cells with a delimiter, a quote or a line break in double quotes",
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise H2TuneError(
            f"malformed {path.suffix[1:].upper()} ({error})",
            where=f"{path}:{reader.line_num}",
            remedy="Close every double quote; one within a cell is written twice",
        ) from None


def _cells(text: str, delimiter: str) -> int:
    """Return the number of cells of a table's header with a delimiter; 0 if it cannot be read so."""
    try:
        return len(
            next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row), [])
        )
    except csv.Error:
        return 0
