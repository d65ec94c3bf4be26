from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from h2tune.errors import H2TuneError
from h2tune.scoring.scorers import SCORERS
from h2tune.tasks.glue import CORPORA, TASKS
from h2tune.tasks.load import describe_task, load_task
from h2tune.tasks.task import Splits

TRAIN, DEV = 24, 8


def hub_rows(name: str, count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows as the Hub has them; a quote is text, also where it is never closed."""
    texts = {
        "sst2": lambda i: {"sentence": f'film {i} is "good '},
        "qqp": lambda i: {"question1": f"Is {i} even?", "question2": f'"Is {i} odd?'},
        "qnli": lambda i: {"question": f"Who is {i}?", "sentence": f"Number {i}, 'a man'."},
    }[name]
    return [{**texts(i), "label": i % 3 % 2, "idx": i} for i in range(start, start + count)]


def tsv(name: str, count: int, start: int = 0) -> str:
    """The same rows as in the archive of gluebenchmark.com."""
    lines = [
        {
            "sst2": "sentence\tlabel",
            "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "qnli": "index\tquestion\tsentence\tlabel",
        }[name]
    ]
    for row in hub_rows(name, count, start):
        i, label = row["idx"], row["label"]
        if name == "sst2":
            lines.append(f"{row['sentence']}\t{label}")
        elif name == "qqp":
            lines.append(f"{i}\t{i}\t{i}\t{row['question1']}\t{row['question2']}\t{label}")
        else:
            named = ("entailment", "not_entailment")[label]
            lines.append(f"{i}\t{row['question']}\t{row['sentence']}\t{named}")
    return "\n".join(lines) + "\n"


def load(name: str) -> Splits:
    return load_task(name, train=12, validation=4, test=6, seed=0)[1]


def write_tsv(folder: Path, name: str) -> None:
    place = folder / CORPORA[name].folder
    place.mkdir()
    (place / "train.tsv").write_text(tsv(name, TRAIN))
    (place / "dev.tsv").write_text(tsv(name, DEV, TRAIN))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("H2TUNE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", list(CORPORA))
def test_all_published_formats_hold_the_same_examples(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tsv(folder, name)
    from_tsv = load(name)
    (folder / CORPORA[name].folder / "train.tsv").unlink()
    (folder / CORPORA[name].folder / "dev.tsv").unlink()
    (folder / name).mkdir()
    splits = {"train": hub_rows(name, TRAIN), "validation": hub_rows(name, DEV, TRAIN)}
    for split, rows in splits.items():
        (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(name) == from_tsv

    monkeypatch.delenv("H2TUNE_DATA")
    hub = types.SimpleNamespace(load_dataset=lambda dataset, config, split: splits[split])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert load(name) == from_tsv


def test_parquet_as_on_the_hub(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_tsv(folder, "qqp")
    from_tsv = load("qqp")
    (folder / "QQP" / "train.tsv").unlink()
    (folder / "qqp").mkdir()
    table = pyarrow.Table.from_pylist(hub_rows("qqp", TRAIN))
    parquet.write_table(table, folder / "qqp" / "train-00000-of-00001.parquet")
    assert load("qqp") == from_tsv
    (folder / "qqp" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(H2TuneError, match=r"train-00000-of-00001\.parquet: is no Parquet file"):
        load("qqp")


@pytest.mark.parametrize("name", list(CORPORA))
def test_labels_texts_and_the_test_set(name: str, folder: Path) -> None:
    write_tsv(folder, name)
    task, splits = load_task(name, train=12, validation=4, test=DEV, seed=0)
    by_text = {
        "\n".join(str(row[field]).strip() for field in CORPORA[name].fields): row
        for row in hub_rows(name, TRAIN + DEV)
    }
    for example in (*splits.train, *splits.validation, *splits.test):
        row = by_text[example.text]
        assert example.label == row["label"]
        assert example.answer == task.verbalisers[example.label]
        assert example.prompt.startswith("Problem: ")
        assert example.prompt.endswith("\nSolution:")
        assert (row["idx"] >= TRAIN) == (example in splits.test)
    assert describe_task(name).labels == CORPORA[name].labels


@pytest.mark.parametrize("name", list(CORPORA))
def test_generated_task_is_the_same_but_for_the_scoring(name: str, folder: Path) -> None:
    write_tsv(folder, name)
    task, splits = load_task(f"{name}_generated", train=12, validation=4, test=6, seed=0)
    assert (task.kind, task.scorer, task.labels) == ("generate", "word", ())
    chosen = load_task(name, train=12, validation=4, test=6, seed=0)[1]
    assert [e.prompt for e in splits.test] == [e.prompt for e in chosen.test]
    assert all(example.label is None for example in splits.train)
    yes, no = CORPORA[name].words
    for example in splits.test:
        assert SCORERS["word"](f"{example.answer}.\n\nProblem: next", example.answer)
        assert not SCORERS["word"](yes if example.answer == no else no, example.answer)
    assert task.one_shot.startswith("Problem: ")
    assert task.one_shot.endswith(tuple(f"Solution:{word}\n\n" for word in CORPORA[name].words))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence\tlabel\n", r"train\.tsv: has no rows"),
        ("text\tlabel\ngood\t1\n", "has no column 'sentence'.*the file's columns: text, label"),
        ("sentence\tlabel\ngood\t-1\n", "label '-1' is not one of negative, positive, 0, 1.*no labels"),
        ("sentence\tlabel\ngood\n", r"train\.tsv:2: does not have the header's 2 cells"),
    ],
)
def test_wrong_file_is_named(folder: Path, content: str, message: str) -> None:
    write_tsv(folder, "sst2")
    (folder / "SST-2" / "train.tsv").write_text(content)
    with pytest.raises(H2TuneError, match=message):
        load("sst2")


def test_a_few_broken_lines_are_passed_over(folder: Path) -> None:
    write_tsv(folder, "sst2")
    path = folder / "SST-2" / "train.tsv"
    path.write_text(tsv("sst2", 300) + "broken\n")
    assert len(load("sst2").train) == 12


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(H2TuneError, match=r"contains none of QNLI/train\.tsv, qnli/train\*\.jsonl"):
        load("qnli")


def test_every_task_is_registered() -> None:
    assert set(TASKS) == {*CORPORA, *(f"{name}_generated" for name in CORPORA)}
    for name in TASKS:
        assert describe_task(name) is TASKS[name]
