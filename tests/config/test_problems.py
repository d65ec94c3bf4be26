"""Errors of a federation file: the true key, what is wrong, what to do, in one line."""

from __future__ import annotations

import pytest

from h2tune.config import parse
from h2tune.config.problems import described, suggestion
from h2tune.config.sections import FederationConfig
from h2tune.errors import H2TuneError

TASK = {"file": "rows.jsonl", "prompt": "Text: {text}", "answer": "label", "labels": ["yes", "no"]}


def complaint(**changes) -> str:
    """Return the error for a client with these changes to its table; None leaves a key out."""
    client = {"name": "m", "model": "/model", "task": TASK, **changes}
    table = {key: value for key, value in client.items() if value is not None}
    with pytest.raises(H2TuneError) as error:
        parse({"name": "wrong", "client": [table]}, "file")
    assert "\n" not in str(error.value) and "input should be" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"answer": None}, "'client.m.task.answer' is missing", "the row's field that holds the answer"),
        ({"prompt": None}, "'client.m.task.prompt' is missing", "`{name}` is a field of the row"),
        ({"file": None}, "client.m.task: 'file' is missing", "rows to train on"),
        ({"labels": ["yes"]}, "client.m.task.labels: must be two or more", "leave labels out for free text"),
        ({"scorer": "bleu"}, "client.m.task.scorer: must be 'label', 'number', 'option'", "not 'bleu'"),
        ({"prompt": "Text:"}, "client.m.task.prompt: must name at least one field", '"{question}"'),
        ({"prompt": "{meta[text]}"}, "client.m.task.prompt: '{meta[text]}'", "Write fields as {name}"),
        ({"labels": "yes"}, "client.m.task.labels: must be a list", "table from each answer"),
        ({"labels": {"a": " yes", "b": " yes"}}, "client.m.task.labels: two answers", "give each its own"),
        ({"labels": {"a": " yes", "b": 3}}, "client.m.task.labels: the words for 'b'", "must be a text"),
        ({"scorer": "word"}, 'client.m.task: scorer = "word"', "leave one of the two out"),
        ({"labels": None, "scorer": "label"}, 'client.m.task: scorer = "label"', "add labels"),
        ({"promt": "x"}, "unknown key 'client.m.task.promt'", "did you mean 'prompt'?"),
    ],
)
def test_a_wrong_task_table_names_its_key_and_the_remedy(changes, key, remedy):
    task = {k: v for k, v in {**TASK, **changes}.items() if v is not None}
    message = complaint(task=task)
    assert key in message and remedy in message, message


def test_a_task_that_is_neither_a_name_nor_a_table():
    assert "client.m.task: must be the name of a built-in task, or a table" in complaint(task=5)
    assert "'client.m.task' is missing. Set it: name of a built-in task" in complaint(task=None)


def test_a_value_of_several_types_names_all_of_them():
    assert "client.m.rank: must be an integer or 'auto', not 'four'" in complaint(rank="four")
    assert "client.m.rank: must be greater than or equal to 1 or 'auto', not 0" in complaint(rank=0)
    assert "must be 1 to 64 letters a to z, digits" in complaint(name="a/b")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("adapter.mask", "experimental.mask"),
        ("adapter.alignment", "experimental.alignment"),
        ("basis.scale", "experimental.basis_scale"),
        ("basis.start", "experimental.start"),
        ("client.part", "experimental.parts"),
        ("data.evaluate_rounds", "experimental.evaluate_rounds"),
        ("privacy.shares", "experimental.noise_shares"),
        ("privacy.structure", "experimental.privacy_structure"),
        ("server.alone", "experimental.alone"),
        ("server.learning_rate", "experimental.server_learning_rate"),
        ("train.alternation", "experimental.alternation"),
        ("train.rounds", "server.rounds"),
        ("rounds", "server.rounds"),
        ("train.learning_rat", "learning_rate"),
        ("sever", "server"),
        ("client.rnak", "rank"),
    ],
)
def test_an_unknown_key_is_led_to_the_nearest_one_of_all_sections(key, place):
    assert suggestion(key, FederationConfig) == f" (did you mean '{place}'?)"


def test_a_key_that_is_like_no_other_is_led_nowhere():
    assert suggestion("server.xyzzy", FederationConfig) == ""


def test_every_key_has_one_sentence():
    sections = {"server", "adapter", "basis", "train", "data", "privacy", "experimental", "client"}
    for key, sentence in described(FederationConfig).items():
        if key not in sections:
            assert sentence.endswith(".") and ". " not in sentence and sentence[:-1], key


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train", "--set takes section.key=value, not 'train'"),
        ("client.n.rank=3", "no client is called 'n'"),
        ("client.rank=3", "--set client.rank: the name of the client is missing"),
        ("name.x=3", "'name' is a value, not a table"),
    ],
)
def test_a_wrong_override_says_how_it_is_written(tmp_path, override, words):
    from h2tune.config import load

    file = tmp_path / "f.toml"
    file.write_text('name = "f"\n[[client]]\nname = "m"\nmodel = "/m"\ntask = "tweets"\n')
    with pytest.raises(H2TuneError, match=words):
        load(file, [override])
