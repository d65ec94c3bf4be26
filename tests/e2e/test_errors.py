"""Bad input gets one clear line that names file, key and remedy, before any training."""

from __future__ import annotations

import os

import pytest
import tomli_w
from helpers import federations
from typer.testing import CliRunner

import h2tune
from h2tune.cli import main
from h2tune.errors import H2TuneError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return folder, federations.federation(folder)


def complain(tmp_path, content, *arguments: str) -> str:
    """Run the command line in this process and return its error line."""
    file = tmp_path / "federation.toml"
    file.write_text(content if isinstance(content, str) else tomli_w.dumps(content))
    arguments = arguments or ("run", str(file), "--out", str(tmp_path / "run"))
    result = CliRunner().invoke(main.app, [a.replace("FILE", str(file)) for a in arguments])
    assert isinstance(result.exception, H2TuneError), result.exception
    message = str(result.exception)
    assert "\n" not in message
    assert not (tmp_path / "run" / "clients").exists()  # nothing was trained
    return message


def changed(content, client: int = 0, **changes):
    clients = [dict(table) for table in content["client"]]
    for key, value in changes.items():
        if value is None:
            del clients[client][key]
        else:
            clients[client][key] = value
    return {**content, "client": clients}


def in_task(content, **changes):
    return changed(content, task={**content["client"][0]["task"], **changes})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: {**c, "sever": {}}, ["unknown key 'sever'", "did you mean 'server'"]),
        (
            lambda c: {**c, "train": {"learning_rat": 1}},
            ["train.learning_rat", "did you mean 'learning_rate'"],
        ),
        (lambda c: changed(c, rnak=3), ["client.one.rnak", "did you mean 'rank'"]),
        (lambda c: in_task(c, promt="x"), ["promt", "did you mean 'prompt'"]),
        (lambda c: changed(c, model=None), ["client.one.model", "missing"]),
        (lambda c: changed(c, rank="four"), ["client.one.rank"]),
        (lambda c: {**c, "train": {"local_steps": 0}}, ["train.local_steps", "greater than or equal to 1"]),
        (lambda c: {**c, "train": {"learning_rate": "2e-4"}}, ["train.learning_rate", "'2e-4'"]),
        (lambda c: changed(c, name="two"), ["two clients are called 'two'"]),
        (lambda c: changed(c, rank="auto"), ["set uplink_bytes or memory_bytes"]),
        (lambda c: changed(c, rank="auto", uplink_bytes=10), ["client 'one'", "budget", "Raise"]),
        (lambda c: {**c, "server": {"shared_rank": 2}}, ["shared_rank 2", "rank 4", "'one'"]),
        (lambda c: {**c, "server": {"min_clients": 9}}, ["min_clients is 9", "2 clients"]),
        (lambda c: {**c, "server": {"strategy": "h2tun"}}, ["no strategy", "did you mean 'h2tune'"]),
        (lambda c: changed(c, rank=99), ["client 'one'", "rank 99", "at most"]),
        (
            lambda c: changed(c, model="/nowhere/at/all"),
            ["client 'one'", "no such folder", "/nowhere/at/all"],
        ),
        (lambda c: changed(c, model="pypi:smollm3"), ["client 'one'", "smollm3", "did you mean"]),
        (lambda c: changed(c, task="movie_review"), ["client 'one'", "did you mean 'movie_reviews'"]),
        (lambda c: in_task(c, file="/nowhere.jsonl"), ["client 'one'", "/nowhere.jsonl"]),
        (lambda c: in_task(c, answer="lable"), ["lable", "did you mean 'label'"]),
        (lambda c: in_task(c, labels=["yes", "maybe"]), ["'no'", "one.jsonl:1"]),
        (lambda c: in_task(c, prompt="{wrods}"), ["wrods", "did you mean 'words'"]),
        (
            lambda c: {**c, "data": {"train": 10_000, "test": 9}},
            ["client 'one'", "10,000 train examples", "fewer"],
        ),
        (lambda c: {**c, "data": {**c["data"], "evaluate": "validation"}}, ["validation", "data.validation"]),
        (lambda c: changed(c, client=1, head="verbaliser"), ["client 'two'", "encoder", "head"]),
        (lambda c: changed(c, max_length=999), ["client 'one'", "max_length 999", "256 positions"]),
        (
            lambda c: {**c, "experimental": {"alternation": "interleave"}, "train": {"local_steps": 1}},
            ["interleave", "'one'", "2 or more"],
        ),
        (lambda c: {**c, "client": []}, ["client"]),
        (lambda c: {**c, "name": "../up"}, ["name"]),
    ],
)
def test_bad_federation_files(tmp_path, sound, spoil, words):
    message = complain(tmp_path, spoil(sound[1]))
    for word in words:
        assert word in message, message


def test_the_file_itself(tmp_path, sound):
    assert "no such file" in complain(tmp_path, sound[1], "run", "nowhere.toml")
    assert "not valid TOML" in complain(tmp_path, "name = ")
    assert "did you mean 'one'" in complain(tmp_path, sound[1], "run", "FILE", "--set", "client.onne.rank=2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"words": "a", "label": "yes"}\n{"words": \n', ["rows.jsonl:2", "malformed JSON"]),
        ('{"words": "a", "label": "yes"}\n{"words": "b", "label": "perhaps"}\n', ["rows.jsonl:2", "perhaps"]),
        ("", ["has no rows"]),
    ],
)
def test_bad_rows_are_named_by_their_line(tmp_path, sound, text, words):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    message = complain(tmp_path, in_task(sound[1], file=str(rows)))
    for word in ["client 'one'", "rows.jsonl", *words]:
        assert word in message, message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path, sound):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    message = complain(tmp_path, sound[1], "run", "FILE", "--out", str(locked / "run"))
    assert "cannot be written" in message and "--out" in message


def test_a_run_folder_that_is_a_file(tmp_path, sound):
    (tmp_path / "taken").write_text("")
    message = complain(tmp_path, sound[1], "run", "FILE", "--out", str(tmp_path / "taken"))
    assert "cannot be written" in message and "--out" in message


def test_two_processes_cannot_share_a_run_folder(tmp_path, sound):
    from h2tune.federation.run_store import RunStore

    held = RunStore(tmp_path / "held")
    try:
        message = complain(tmp_path, sound[1], "run", "FILE", "--out", str(tmp_path / "held"))
        assert "another process" in message
    finally:
        held.close()


def test_a_wrong_trainer_argument_is_refused_before_training(tmp_path, sound):
    assert "bf17" in complain(tmp_path, {**sound[1], "train": {"arguments": {"bf17": True}}})
    assert "max_steps" in complain(tmp_path, {**sound[1], "train": {"arguments": {"max_steps": 3}}})


def test_the_version_can_be_asked_for_as_all_parties_need_the_same():
    result = CliRunner().invoke(main.app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, h2tune.__version__)


@pytest.mark.parametrize("command", [("inspect", "FILE"), ("run", "FILE", "--out", "RUN")])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ["has no readable tokenizer"]),
        (lambda folder: (folder / "tokenizer.json").unlink(), ["has no readable tokenizer"]),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named_before_anything_is_loaded(tmp_path, command, spoil, words):
    content = federations.federation(tmp_path)
    spoil(tmp_path / "models" / "llama")
    message = complain(tmp_path, content, *(word.replace("RUN", str(tmp_path / "run")) for word in command))
    assert all(word in message for word in [*words, "llama"])


@pytest.mark.parametrize("command", [("inspect", "FILE"), ("run", "FILE", "--out", "RUN")])
def test_labels_that_the_tokenizer_writes_alike_are_named_before_anything_is_loaded(tmp_path, command):
    content = in_task(federations.federation(tmp_path), labels={"yes": " qux", "no": " quux"})  # both unknown
    message = complain(tmp_path, content, *(word.replace("RUN", str(tmp_path / "run")) for word in command))
    assert "client 'one'" in message and "have the same tokens" in message
