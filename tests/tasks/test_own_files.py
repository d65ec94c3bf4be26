"""A user's own files as tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from h2tune.errors import H2TuneError
from h2tune.tasks.load import describe_task, load_task
from h2tune.tasks.rows import FileTask
from h2tune.tasks.task import Example


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own(file: Path | str, **changes: Any) -> FileTask:
    options = {"prompt": "Q: {question}\nA:", "answer": "answer", "text": "{question}"}
    return FileTask(file=str(file), **{**options, **changes})


def test_json_lines_with_labels(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": i % 2 == 0, "more": [1]} for i in range(20)]
    file = write(tmp_path / "own.jsonl", rows)
    task, splits = load_task(own(file, labels=[True, False]), train=5, validation=2, test=3, seed=0)
    assert (task.name, task.kind, task.labels, task.scorer) == ("own", "label", ("true", "false"), "label")
    example = splits.train[0]
    even = int(example.text[1:]) % 2 == 0
    assert example == Example(
        f"Q: {example.text}\nA:", " true" if even else " false", 0 if even else 1, example.text
    )
    assert describe_task(own("not/there.jsonl", labels=["a", "b"])).verbalisers == (" a", " b")


def test_verbalisers_of_ones_own_and_free_answers(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", [{"question": f"q{i}", "answer": "1"} for i in range(10)])
    task, splits = load_task(
        own(file, labels={"1": " yes", "0": " no"}), train=2, validation=0, test=2, seed=0
    )
    assert task.verbalisers == (" yes", " no") and splits.train[0].answer == " yes"
    task, splits = load_task(own(file, scorer="number", text=None), train=2, validation=0, test=2, seed=0)
    assert (task.kind, task.scorer) == ("generate", "number")
    assert splits.train[0].answer == " 1" and splits.train[0].label is None
    assert splits.train[0].text == splits.train[0].prompt[3:-3]


def test_csv_with_quotes_line_breaks_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(
        '\ufeffquestion,answer\r\n"a, ""b""\nc",yes\r\n\r\nd,no\r\n', encoding="utf-8", newline=""
    )
    pools = own(file).read()
    assert [(e.text, e.answer) for e in pools.train] == [('a, "b"\nc', " yes"), ("d", " no")]
    (tmp_path / "own.tsv").write_text("question\tanswer\na, b\tyes\n", encoding="utf-8")
    assert own("own.tsv").read(tmp_path).train[0].text == "a, b"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_table_is_found(tmp_path: Path, delimiter: str) -> None:
    lines = (("question", "answer"), ('"one, two; three|\t"', "yes"), ("d", "no"))
    (tmp_path / "own.csv").write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    assert [e.text for e in own("own.csv").read(tmp_path).train] == ["one, two; three|\t", "d"]


def test_another_encoding_is_named_and_a_wrong_one_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes("question;answer\nGröße – ja;x\n".encode("cp1252"))
    assert own("own.csv", encoding="cp1252").read(tmp_path).train[0].text == "Größe – ja"
    with pytest.raises(H2TuneError, match=r'own\.csv:2: is not UTF-8 .*encoding = "cp1252"'):
        own("own.csv").read(tmp_path)
    (tmp_path / "own.csv").write_bytes("question;answer\nGröße – ja;x\n".encode("utf-16"))
    assert own("own.csv", encoding="utf-16").read(tmp_path).train[0].text == "Größe – ja"
    for encoding in ("latin-99", "hex", "rot13", "undefined"):
        with pytest.raises(ValidationError, match=f"no encoding '{encoding}'"):
            own("own.csv", encoding=encoding)


def test_a_long_cell_is_read_and_a_field_within_an_object_too(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(f"question,answer\n{'word ' * 60_000},x\n", encoding="utf-8")
    assert len(own("own.csv").read(tmp_path).train[0].text) == 300_000
    rows = [{"meta": {"text": "q"}, "a.b": "x", "a": {"b": "y"}}]
    write(tmp_path / "own.jsonl", rows)
    task = FileTask(file="own.jsonl", prompt="{meta.text} {a.b}", answer="a.b")
    assert task.read(tmp_path).train[0].prompt == "q x"  # a key with a dot comes first
    for prompt, message in (
        ("{meta.txt}", r"no field 'txt' \(of 'meta\.txt'\).*did you mean 'text'"),
        ("{meta.text.x}", "no object"),
    ):
        with pytest.raises(H2TuneError, match=message):
            FileTask(file="own.jsonl", prompt=prompt, answer="a.b").read(tmp_path)


def test_rows_that_repeat_a_prompt_or_are_not_used_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "own.jsonl", [{"question": f"q{i % 30}", "answer": "x"} for i in range(50)])
    _, splits = load_task(own("own.jsonl"), train=10, validation=5, test=4, seed=0, base=tmp_path)
    assert (splits.repeated, splits.unused) == (20, 30 - 6 - 5 - 10)  # a fifth is reserved for tests
    with pytest.raises(H2TuneError, match="of 50 rows, 20 repeat a prompt and do not count"):
        load_task(own("own.jsonl"), train=40, validation=0, test=4, seed=0, base=tmp_path)


def test_a_free_answer_is_as_long_as_those_to_train_on(tmp_path: Path) -> None:
    def tokens(longest: str, **changes: Any) -> int:
        rows = [{"question": f"q{i}", "answer": longest[: i + 1]} for i in range(len(longest))]
        write(tmp_path / "own.jsonl", rows)
        task, _ = load_task(own("own.jsonl", **changes), train=1, validation=0, test=1, seed=0, base=tmp_path)
        return task.new_tokens

    assert tokens("forty-two") == 16  # a number or a word: nobody waits for 512 tokens
    assert tokens("x" * 99) == 101  # with the space before it, and its end
    assert tokens("語" * 20) == 62  # a character may take three tokens
    assert tokens("x" * 700) == 512
    assert tokens("forty-two", max_new_tokens=3) == 3


def test_own_test_file_is_used_whole(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"question": f"q{i}", "answer": "x"} for i in range(10)])
    write(tmp_path / "test.jsonl", [{"question": f"t{i}", "answer": "x"} for i in range(4)])
    task = own("train.jsonl", test_file="test.jsonl")
    _, splits = load_task(task, train=10, validation=0, test=4, seed=0, base=tmp_path)
    assert {e.text for e in splits.test} == {"t0", "t1", "t2", "t3"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "q", "answer": "x"}\n{"question": \n', r"a\.jsonl:2: malformed JSON"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: malformed JSON"),
        ("a.jsonl", b'\n["q", "x"]\n', r"a\.jsonl:2: the line is not an object"),
        (
            "a.jsonl",
            b'{"qestion": "q", "answer": "x"}',
            r"a\.jsonl:1: no field 'question' \(did you mean 'qestion'",
        ),
        ("a.jsonl", b'{"question": "q"}', r"a\.jsonl:1: no field 'answer'"),
        ("a.jsonl", b'{"question": "q", "answer": null}', r"a\.jsonl:1: field 'answer' is null"),
        ("a.jsonl", b'{"question": "q", "answer": " "}', r"a\.jsonl:1: field 'answer' is empty"),
        ("a.jsonl", b'{"question": "", "answer": "x"}', r"a\.jsonl:1: the text is empty"),
        ("a.jsonl", b'{"question": ["q"], "answer": "x"}', r"a\.jsonl:1: field 'question' is a list"),
        ("a.jsonl", b'{"question": "q", "answer": "x"}\n\xff', r"a\.jsonl:2: is not UTF-8"),
        (
            "a.jsonl",
            b'{"question": "q", "question": "p", "answer": "x"}',
            r"a\.jsonl:1: field 'question' stands twice",
        ),
        ("a.jsonl", b'{"question": NaN, "answer": "x"}', r"a\.jsonl:1: a field is NaN"),
        ("a.jsonl", b'{"question": "q", "answer": -Infinity}', r"a\.jsonl:1: a field is -Infinity"),
        ("a.csv", b"question,answer,question\nq,x,p\n", r"a\.csv:1: column 'question' stands twice"),
        ("a.jsonl", b"\n\n", r"a\.jsonl: has no rows"),
        ("a.csv", b"question,answer\n", r"a\.csv: has no rows"),
        ("a.csv", b"question,answer\n\nq,x\nq,x,y\n", r"a\.csv:4: the row has 3 cells, the header has 2"),
        ("a.csv", b'question,answer\n"q"r,x\n', r"a\.csv:2: malformed CSV"),
        ("a.csv", b"question,answr\nq,x\n", r"a\.csv:2: no field 'answer' \(did you mean 'answr'"),
        ("a.txt", b"", r"a\.txt: unknown file ending '\.txt'.*\.jsonl"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(H2TuneError, match=message):
        own(name).read(tmp_path)


def test_missing_file_and_unknown_label(tmp_path: Path) -> None:
    with pytest.raises(H2TuneError, match=r"gone\.jsonl: cannot be read"):
        own("gone.jsonl").read(tmp_path)
    write(tmp_path / "a.jsonl", [{"question": "q", "answer": "posittive"}])
    with pytest.raises(H2TuneError, match=r"a\.jsonl:1: label 'posittive'.*did you mean 'positive'"):
        own("a.jsonl", labels=["positive", "negative"]).read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scorer": "label"},
        {"labels": ["a", "b"], "scorer": "word"},
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"labels": {"a": " x", "b": " x"}},
        {"prompt": "no field"},
        {"promt": "{question}"},
        {"max_length": 0},
    ],
)
def test_descriptions_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        own("a.jsonl", **changes)
