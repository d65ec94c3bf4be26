"""Predictions of a finished run's client for rows without an answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from h2tune.errors import H2TuneError
from h2tune.evaluation.evaluate import label_scores
from h2tune.evaluation.generate import generated
from h2tune.runs.results import RestoredClient, restored_client
from h2tune.tasks.own_task import OwnTask
from h2tune.tasks.row_files import LINES, read_rows
from h2tune.tasks.rows import question
from h2tune.tasks.task import Example
from h2tune.training.encode import encode_causal, encode_texts

PREDICTION, PROBABILITY = "prediction", "probability of {}"


def predict(folder: Path, client: str, file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file with a client's predictions: its label and all probabilities, or a free answer.

    Args:
        folder: The run folder.
        client: The client's name.
        file: JSON Lines, CSV or TSV with the fields of the task's template.

    Raises:
        H2TuneError: No such run, client or file; a row lacks a field, or has one that the predictions are called.
    """
    restored, task = restored_client(folder, client)
    own = task if isinstance(task, OwnTask) else None
    known = restored.client.task
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
    return [row | one for row, one in zip(rows, _predictions(restored, examples), strict=True)]


def written(rows: Sequence[Mapping[str, Any]], ending: str) -> str:
    """Return rows as JSON Lines or as CSV, by the ending of the file's name."""
    if ending in LINES:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    stream = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _predictions(restored: RestoredClient, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    client, tokenizer = restored.client, restored.tokenizer
    size, task = client.evaluate_batch_size, client.task
    with torch.inference_mode():
        if task.kind == "generate":
            for start in range(0, len(examples), size):
                for text in generated(restored.model, task, examples[start : start + size], tokenizer):
                    yield {PREDICTION: text.strip()}
            return
        encoded = (encode_causal if client.causal else encode_texts)(task, examples, tokenizer)
        scores = label_scores(restored.model, task, encoded, tokenizer, causal=client.causal, batch_size=size)
    for row in scores.softmax(1):
        probabilities = {
            PROBABILITY.format(label): round(float(p), 6) for label, p in zip(task.labels, row, strict=True)
        }
        yield {PREDICTION: task.labels[int(row.argmax())], **probabilities}
