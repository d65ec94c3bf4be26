"""Tasks: splits, templates, the user's own files, and reading the demo data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from h2tune.errors import H2TuneError
from h2tune.tasks import MODULES, bbc_topics, movie_reviews
from h2tune.tasks.duplicates import without_near_duplicates
from h2tune.tasks.load import describe_task, load_task
from h2tune.tasks.prompts import fields, fill, filled, parse, shorten
from h2tune.tasks.rows import FileTask
from h2tune.tasks.splits import split
from h2tune.tasks.task import Example, Pools, Splits


def examples(n: int, prefix: str = "row") -> list[Example]:
    return [Example(f"{prefix} {i}", " a", None, f"{prefix} {i}") for i in range(n)]


def take(pools: Pools, **changes: Any) -> Splits:
    options: dict[str, Any] = {
        "train": 20,
        "validation": 5,
        "test": 10,
        "seed": 0,
        "part": (0, 1),
        "where": "t",
    }
    return split(pools, **{**options, **changes})


# Splits


def test_splits_are_disjoint_and_repeatable() -> None:
    pools = Pools(examples(100))
    splits = take(pools)
    parts = [set(splits.train), set(splits.validation), set(splits.test)]
    assert [len(part) for part in parts] == [20, 5, 10]
    assert len(set.union(*parts)) == 35
    assert splits == take(Pools(examples(100)[::-1]))  # the order of the rows means nothing


def test_test_set_is_the_same_whatever_else_is_asked_for() -> None:
    pools = Pools(examples(100))
    first = take(pools)
    for changes in ({"seed": 1}, {"train": 50}, {"validation": 0}, {"part": (1, 2)}):
        assert take(pools, **changes).test == first.test
    assert take(pools, test=5).test == first.test[:5]
    assert set(take(pools, seed=1).train) != set(first.train)


def test_smaller_training_set_begins_the_larger_one() -> None:
    pools = Pools(examples(100))
    assert take(pools, train=10).train == take(pools).train[:10]


def test_a_larger_test_set_later_holds_nothing_that_was_trained_on() -> None:
    pools = Pools(examples(100))
    trained = {*take(pools, train=70, test=1).train}
    assert not trained & {*take(pools, test=20).test}


def test_parts_of_all_seeds_are_disjoint() -> None:
    pools = Pools(examples(100))
    first = take(pools, part=(0, 3), seed=0)
    other = take(pools, part=(1, 3), seed=5)
    assert not {*first.train, *first.validation} & {*other.train, *other.validation}
    with pytest.raises(H2TuneError, match="part 3 of 3"):
        take(pools, part=(3, 3))


def test_same_text_never_on_both_sides() -> None:
    doubled = [Example(f"Row  {e.prompt[4:]} ".upper(), " b", None, "") for e in examples(30)]
    splits = take(Pools(examples(30) + doubled), train=19, validation=5, test=6)
    folded = [
        " ".join(e.prompt.casefold().split()) for e in (*splits.train, *splits.validation, *splits.test)
    ]
    assert len(set(folded)) == len(folded) == 30

    own_test = take(Pools(examples(30), test=doubled[:10]), train=15, validation=5, test=10)
    keys = {e.prompt.casefold().split()[1] for e in own_test.test}
    assert not keys & {e.prompt.split()[1] for e in (*own_test.train, *own_test.validation)}
    both = Pools(examples(30), validation=examples(12), test=examples(5))
    splits = take(both, train=18, validation=7, test=5)
    assert len({*splits.train, *splits.validation, *splits.test}) == 30


def test_too_few_examples_say_how_many_there_are() -> None:
    with pytest.raises(H2TuneError, match=r"films: 90 train examples requested, 75 available"):
        take(Pools(examples(100)), train=90, where="films")
    with pytest.raises(H2TuneError, match=r"11 test examples requested, 10 available"):
        take(Pools(examples(100), test=examples(10, "test")), test=11)
    with pytest.raises(H2TuneError, match=r"available in part 0 of 4"):
        take(Pools(examples(100)), part=(0, 4))


# Templates


def test_fill_substitutes_and_does_nothing_else() -> None:
    assert fill("{{{a}}} {b-c} {a}", {"a": "{b}", "b-c": "%s"}) == "{{b}} %s {b}"
    assert fields("{{x}} {a} {b} {a}") == ("a", "b")
    assert parse("a{{b}}{x}c}}d") == (("a{b}", "x"), ("c}d", None))


@pytest.mark.parametrize(
    "template",
    ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>10}", "{}", "{0}", "{a", "a}", "{ a}", "{a:{b}}"],
)
def test_templates_that_are_more_than_fields_are_refused(template: str) -> None:
    with pytest.raises(H2TuneError, match="template"):
        fill(template, {"a": "x", "b": "y"})
    with pytest.raises(ValidationError, match="template"):
        FileTask(file="x.csv", prompt=template, answer="a")


def test_shorten_leaves_out_the_middle_of_the_text_and_nothing_of_the_frame() -> None:
    text, spans = filled("Q: {text} A:", {"text": "abcdefgh"})
    assert shorten(text, spans, len, 14) == "Q: abcdefgh A:"
    assert shorten(text, spans, len, 11) == "Q: abcgh A:"
    assert shorten(text, spans, len, 3) == "Q:  A:"


def test_shorten_cuts_the_longest_field_first_wherever_it_is() -> None:
    template = "{context}\n{question}? {{A}}:"
    text, spans = filled(template, {"context": "long context", "question": "why"})
    assert shorten(text, spans, len, 14) == "loxt\nwhy? {A}:"
    assert shorten(text, spans, len, 10) == "l\nw? {A}:"


def test_shorten_cuts_between_words() -> None:
    text, spans = filled("{text}", {"text": "first second third fourth fifth"})
    assert shorten(text, spans, lambda part: len(part.split()), 4) == "first second fourth fifth"


def test_a_field_that_contains_the_template_s_words_is_cut_where_it_stands() -> None:
    text, spans = filled("Text: {text}\nAnswer: {hint} Answer:", {"text": "x\nAnswer: " * 9, "hint": "short"})
    assert shorten(text, spans, len, 60).endswith("\nAnswer: short Answer:")


@given(st.text("ab {}", max_size=40), st.text("ab\n", max_size=40), st.integers(0, 60))
def test_shorten_keeps_the_frame_and_the_limit(one: str, other: str, limit: int) -> None:
    text, spans = filled("<{one}|{other}>", {"one": one, "other": other})
    short = shorten(text, spans, len, limit)
    assert short.startswith("<") and short.endswith(">") and "|" in short
    assert len(short) <= max(limit, 3)
    assert short == text or len(text) > limit


# Files


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


# Built-in tasks


def test_built_in_tasks_describe_themselves_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2TUNE_CACHE", "/nonexistent")
    for name in ("movie_reviews", "tweets", "bbc_topics"):
        task = describe_task(name)
        assert task.name == name and name in MODULES
        assert len(task.labels) == len(task.verbalisers) and task.source and task.license
        assert all(word.startswith(" ") for word in task.verbalisers)
        assert fields(task.template) == ("text",)


def test_unknown_task_gets_a_suggestion_or_a_recipe() -> None:
    with pytest.raises(H2TuneError, match="did you mean 'movie_reviews'"):
        describe_task("movie_review")
    with pytest.raises(H2TuneError, match=r"task = \{ file ="):
        describe_task("data/rows.jsonl")


def test_rated_texts(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text(
        "1\t2.5\tA fine film about a dog &amp; a cat.\r\n2\t-0.8\tNeither\r\n3\t-1.0\tDull\u2028stuff\r\n"
        "4\t2.5\tA fine film about a dog, a cat!\r\n",
        encoding="utf-8",
        newline="",
    )
    task = describe_task("movie_reviews")
    found = movie_reviews.rated_texts(task, file)
    assert [(e.text, e.answer, e.label) for e in found] == [
        ("A fine film about a dog & a cat.", " positive", 1),
        ("Dull stuff", " negative", 0),
    ]
    file.write_text("1\tx\tA\n", encoding="utf-8")
    with pytest.raises(H2TuneError, match=r"rows\.tsv:1"):
        movie_reviews.rated_texts(task, file)


def test_bbc_topics_reads_articles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "Chelsea have won the cup after a long final against their old rivals."
    write(
        tmp_path / "rows.jsonl",
        [
            {"topic": "sports", "number": "001", "text": f"Chelsea win\n\n{body}"},
            {"topic": "sports", "number": "002", "text": f"A win for Chelsea\n\n{body}"},
            {"topic": "tech", "number": "001", "text": "New chip"},
        ],
    )
    monkeypatch.setattr(bbc_topics, "fetch", lambda name: tmp_path)
    found = bbc_topics.read(describe_task("bbc_topics")).train
    assert [(e.text, e.answer, e.label) for e in found] == [
        (f"Chelsea win {body}", " sport", 3),
        ("New chip", " tech", 4),
    ]
    assert found[1].prompt == "Article: New chip\nTopic:"


def test_near_duplicates() -> None:
    texts = [
        "Yay. Another good phone interview.",
        "the cat sat on the mat today",
        "YAY!! Another good phone interview :)",
        "the cat sat on the sofa yesterday and slept",
        "",
        "!!",
    ]
    assert without_near_duplicates(texts) == [0, 1, 4]
    assert without_near_duplicates(texts, share=0.9) == [0, 1, 3, 4]
