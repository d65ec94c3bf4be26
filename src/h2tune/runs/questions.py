"""Rows to predict, read before a heavy library is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from h2tune.config import ClientConfig
from h2tune.errors import H2TuneError
from h2tune.tasks.load import describe_task
from h2tune.tasks.own_task import OwnTask
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.rows import question
from h2tune.tasks.task import Example

PREDICTION, PROBABILITY = "prediction", "probability of {}"
ENDINGS = (".csv", ".jsonl", ".ndjson")
"""Endings of a file of predictions."""


def read_questions(client: ClientConfig, file: Path) -> tuple[list[dict[str, Any]], list[Example]]:
    """Return the rows of a file, and what a client's task asks of each.

    Args:
        client: The client that predicts.
        file: JSON Lines, CSV, TSV or Parquet with the fields of the task's template.

    Raises:
        H2TuneError: The file is missing, empty or malformed; a row lacks a field, or has one that predictions are
            called.
    """
    own = client.task if isinstance(client.task, OwnTask) else None
    known = describe_task(client.task)
    names = {PREDICTION, *(PROBABILITY.format(label) for label in known.labels)}
    rows, examples = [], []
    for line, row in read_rows(file, own.encoding if own else "utf-8"):
        where = f"{file}:{line}"
        examples.append(own.question(row, where) if own else question(known, None, row, where))
        if taken := sorted(row.keys() & names):
            raise H2TuneError(f"it has a field '{taken[0]}' already", where=where, remedy="Rename that field")
        rows.append(dict(row))
    if not rows:
        raise H2TuneError("has no rows", where=str(file))
    return rows, examples


def check_predictions(out: Path) -> None:
    """Refuse a file of predictions whose ending says no known format.

    Raises:
        H2TuneError: Its ending is another.
    """
    if out.suffix.lower() not in ENDINGS:
        raise H2TuneError("its ending is not .csv or .jsonl", where=str(out), remedy="Name such a file")
