"""Failures on a member's machine: the coordinator receives the kind of error, and neither a path nor data."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest
from helpers import federations

from h2tune.config import load
from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import Message
from helpers.grids import identify

from h2tune.federation import client_round
from h2tune.federation.messages import Update
from h2tune.federation.run_store import RunStore
from h2tune.flower.deploy import kit
from h2tune.flower.load import load_coordinator
from h2tune.flower.member import app, handlers, workspace
from h2tune.flower.member.join import join
from h2tune.flower.messages import TRAIN, pack, unpack

EXPERIMENT = "0" * 32


@pytest.fixture
def party(tmp_path):
    """A member's file, and the settings of its federation."""
    content = federations.federation(tmp_path, train={"local_steps": 1}, data={"train": 8, "test": 4})
    kit.init(load(federations.write(tmp_path, content)), tmp_path / "parties", host="127.0.0.1")
    settings = load_coordinator(tmp_path / "parties" / "coordinator" / "coordinator.toml").settings
    return tmp_path / "parties" / "members" / "one" / "member.toml", settings


@pytest.fixture
def ask(party, monkeypatch):
    """A function that sends a member the message of its first round, and returns head and update of its answer."""
    file, settings = party
    identify(monkeypatch)
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "one", 0)
    head = {"settings": settings.model_dump_json(), "experiment": EXPERIMENT, "digest": down.digest}

    def answer():
        content = pack(head, Update("one", 0, 0, down.tensors))
        message = Message(content, dst_node_id=1, message_type=TRAIN)
        reply = app.train(message, SimpleNamespace(node_config={app.NODE_KEY: str(file)}))
        return unpack(reply.content)

    return answer


def full(*arguments, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/films/private")


def test_a_full_disk_is_reported_before_training_and_the_round_runs_later(ask, monkeypatch):
    trained = []
    run = client_round.ClientRound.run
    monkeypatch.setattr(client_round.ClientRound, "run", lambda *a: trained.append(1) or run(*a))
    with monkeypatch.context() as patch:
        patch.setattr(workspace.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        head, update = ask()
    assert update is None and not trained
    assert head["reason"].startswith("the disk of its folder is full: 0.0 MB are free, a round may take 0.")
    assert ask()[1].client == "one" and trained == [1]


def test_a_disk_that_fills_up_in_a_round_is_reported_and_the_round_runs_again(ask, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit", full)
        head, update = ask()
    assert update is None
    assert head["reason"] == "OSError (No space left on device); the member's own log says more"
    assert ask()[1].client == "one"


def test_a_folder_that_cannot_be_used_is_reported_without_its_path(ask, party, monkeypatch):
    folder = party[0].parent / "private"
    store = RunStore(folder / EXPERIMENT, resume=True)
    head, _ = ask()
    assert head["reason"].startswith("its folder: another process is running in this folder")
    store.close()
    monkeypatch.setattr(workspace.Path, "mkdir", full)
    head, _ = ask()
    assert head["reason"].startswith("its folder cannot be written (No space left on device)")
    assert "/" not in head["reason"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (H2TuneError("there is no round 9"), "there is no round 9"),
        (H2TuneError("row 3 is 'secret'", where="/srv/data.jsonl"), "H2TuneError"),
        (
            FileNotFoundError(errno.ENOENT, "x", "/srv/data.jsonl"),
            "FileNotFoundError (No such file or directory)",
        ),
        (ValueError("secret"), "ValueError"),
    ],
)
def test_a_reason_names_no_path_and_quotes_no_data(error, reason):
    assert handlers.reason(error) == reason
