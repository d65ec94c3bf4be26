"""The paper's three tasks D2, from GLUE (arXiv 1804.07461): SST-2, QQP and QNLI.

GLUE's training rows are for training, its validation rows ("dev") for testing: the labels of its own test rows are
not public. Each task has two forms. `sst2` chooses among labels, which works with encoders as well and needs no
generation; `sst2_generated` is the paper's protocol: one solved problem before the question, greedy generation, and a
search for the label among the words of the output.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.tasks.prompts import fill, filled, joined
from h2tune.tasks.published import data_folder, first_file, hub_rows
from h2tune.tasks.row_files import read_rows
from h2tune.tasks.task import Example, Pools, Task

DATASET = "nyu-mll/glue"
GENERATED = "_generated"
MALFORMED = 0.01  # QQP is published with a few broken lines; a larger share means another file


@dataclass(frozen=True)
class Corpus:
    """One data set of GLUE.

    Args:
        folder: Its folder in the archive of gluebenchmark.com.
        fields: Columns with text.
        label: Column with the label in that archive; it is "label" on the Hub.
        labels: Names of the labels, in the order of their numbers on the Hub.
        words: The verbaliser of each label.
        template: The prompt.
        example: The fields of a solved problem, and the number of its label.
        license: Licence, one line.
    """

    folder: str
    fields: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    template: str
    example: tuple[dict[str, str], int]
    license: str


CORPORA = {
    "sst2": Corpus(
        folder="SST-2",
        fields=("sentence",),
        label="label",
        labels=("negative", "positive"),
        words=(" Negative", " Positive"),
        template="Problem: Is this film review positive or negative?\nReview: {sentence}\nSolution:",
        example=({"sentence": "a warm and clever little film"}, 1),
        license="no licence stated; the sentences are from Rotten Tomatoes",
    ),
    "qqp": Corpus(
        folder="QQP",
        fields=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        words=(" No", " Yes"),
        template="Problem: Do these two questions ask the same, yes or no?\nQuestion 1: {question1}\n"
        "Question 2: {question2}\nSolution:",
        example=(
            {"question1": "How can I learn to swim?", "question2": "What is the best way to learn swimming?"},
            1,
        ),
        license="Quora's terms of service: non-commercial use",
    ),
    "qnli": Corpus(
        folder="QNLI",
        fields=("question", "sentence"),
        label="label",
        labels=("entailment", "not_entailment"),
        words=(" Yes", " No"),
        template="Problem: Does the sentence answer the question, yes or no?\nQuestion: {question}\n"
        "Sentence: {sentence}\nSolution:",
        example=(
            {"question": "When was the bridge built?", "sentence": "The bridge was built in 1932."},
            0,
        ),
        license="CC BY-SA 4.0 (SQuAD)",
    ),
}


def _tasks(name: str, corpus: Corpus) -> Iterator[Task]:
    row, label = corpus.example
    for generated in (False, True):
        yield Task(
            name=name + GENERATED if generated else name,
            kind="generate" if generated else "label",
            labels=() if generated else corpus.labels,
            verbalisers=() if generated else corpus.words,
            template=corpus.template,
            source=f"{corpus.folder} of GLUE (Hugging Face: {DATASET}, {name})",
            license=corpus.license,
            scorer="word" if generated else "label",
            max_length=512,
            one_shot=fill(corpus.template, row) + corpus.words[label] + "\n\n" if generated else "",
        )


TASKS = {task.name: task for name, corpus in CORPORA.items() for task in _tasks(name, corpus)}


def read(task: Task, folder: Path | None = None) -> Pools:
    """Return the rows, from `folder`, else from `$H2TUNE_DATA`, else from the Hub.

    Raises:
        H2TuneError: They are missing or malformed.
    """
    name, folder = task.name.removesuffix(GENERATED), folder or data_folder()
    return Pools(train=_split(task, name, "train", folder), test=_split(task, name, "validation", folder))


def _split(task: Task, name: str, split: str, folder: Path | None) -> list[Example]:
    corpus = CORPORA[name]
    tsv = f"{corpus.folder}/{'dev' if split == 'validation' else split}.tsv"
    files = (tsv, f"{name}/{split}*.jsonl", f"{name}/{split}*.parquet", f"glue_data/{tsv}")
    if folder is None:
        rows = hub_rows(DATASET, config=name, split=split, files=tsv)
        return [_example(task, corpus, row, f"{DATASET}, {name}") for row in rows]
    path = first_file(folder, files)
    rows = _read_tsv(path) if path.suffix == ".tsv" else (row for _, row in read_rows(path))
    examples = [_example(task, corpus, row, str(path)) for row in rows]
    if not examples:
        raise H2TuneError("has no rows", where=str(path), remedy="Download it again")
    return examples


def _example(task: Task, corpus: Corpus, row: Mapping[str, Any], where: str) -> Example:
    key = "label" if "label" in row else corpus.label
    missing = [field for field in (*corpus.fields, key) if field not in row]
    if missing:
        raise H2TuneError(
            f"has no column '{missing[0]}'",
            where=where,
            remedy=f"Use {corpus.folder} as GLUE publishes it; the file's columns: {', '.join(map(str, row))}",
        )
    given = str(row[key])
    numbers = [str(number) for number in range(len(corpus.labels))]
    names = corpus.labels if given in corpus.labels else numbers
    if given not in names:
        raise H2TuneError(
            f"label '{given}' is not one of {', '.join((*corpus.labels, *numbers))}",
            where=where,
            remedy="Use the rows for training and validation; GLUE's test rows have no labels",
        )
    label = names.index(given)
    texts = {field: str(row[field]).strip() for field in corpus.fields}
    prompt, text = filled(task.template, texts), joined(list(texts.values()))
    known = label if task.kind == "label" else None
    return Example(prompt.text, corpus.words[label], known, text.text, prompt.fields, text.fields)


def _read_tsv(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a GLUE file, in which a quote is an ordinary character."""
    broken: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(reader, [])
            for cells in reader:
                if len(cells) == len(header):
                    yield dict(zip(header, cells, strict=True))
                elif cells:
                    broken.append(reader.line_num)
            lines = reader.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise H2TuneError(f"cannot be read ({error})", where=str(path), remedy="Download it again") from None
    if len(broken) > MALFORMED * lines:
        raise H2TuneError(
            f"does not have the header's {len(header)} cells, like {len(broken)} of {lines} lines",
            where=f"{path}:{broken[0]}",
            remedy="Use the file as GLUE publishes it",
        )
