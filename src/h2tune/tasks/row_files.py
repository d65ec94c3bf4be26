"""Read rows from JSON Lines, CSV and TSV files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, row) of a JSON Lines, CSV or TSV file, by the ending of its name.

    Raises:
        H2TuneError: The file is missing, not UTF-8 or malformed.
    """
    ending = path.suffix.lower()
    if ending not in (*LINES, *DELIMITERS):
        raise H2TuneError(
            f"unknown file ending '{ending}'",
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
                remedy="JSON Lines has one object per line",
            ) from None
        if not isinstance(row, dict):
            raise H2TuneError(
                "the line is not an object", where=where, remedy='Write {"field": "value", …} on each line'
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
                    remedy="Put cells with a delimiter, a quote or a line break in double quotes",
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise H2TuneError(
            f"malformed {path.suffix[1:].upper()} ({error})", where=f"{path}:{reader.line_num}"
        ) from None
