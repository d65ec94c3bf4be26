"""Predictions of a finished run's client for rows without an answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from h2tune.evaluation.evaluate import label_scores
from h2tune.evaluation.generate import generated
from h2tune.runs.folder import client_of, read_run
from h2tune.runs.questions import PREDICTION, PROBABILITY, read_questions
from h2tune.runs.results import RestoredClient, restored_client
from h2tune.tasks.row_files import LINES
from h2tune.tasks.task import Example
from h2tune.training.encode import encode_causal, encode_texts


def predict(folder: Path, client: str, file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file with a client's predictions: its label and all probabilities, or a free answer.

    Args:
        folder: The run folder.
        client: The client's name.
        file: JSON Lines, CSV or TSV with the fields of the task's template.

    Raises:
        H2TuneError: No such run, client or file; a row lacks a field, or has one that the predictions are called.
    """
    rows, examples = read_questions(client_of(read_run(folder), client, folder), file)
    restored = restored_client(folder, client)
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
