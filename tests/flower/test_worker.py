"""The worker beside a SuperNode: the same answers, to its own user alone, and a member is never worse off with one."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from helpers import federations
from helpers.processes import environment
from helpers.strategies import aggregate

pytest.importorskip("flwr")

from flwr.app import Message
from helpers import grids

from h2tune.errors import H2TuneError
from h2tune.federation import local_engine
from h2tune.federation.messages import Update, digest
from h2tune.flower.files import load_coordinator
from h2tune.flower.member import app, round, worker
from h2tune.flower.messages import TRAIN, pack, unpack


@pytest.fixture
def content(tmp_path, monkeypatch):
    """A federation of two, of which the kits are written."""
    grids.identify(monkeypatch)
    return federations.federation(tmp_path, train={"local_steps": 1}, data={"train": 8, "test": 4})


def kit_of(content, folder):
    folder.mkdir()
    return grids.lay_out(content, folder)


def two_rounds(parties, name: str = "one"):
    """Return a member's events and updates of two rounds in which it is the only one."""
    file = parties / "members" / name / "member.toml"
    settings = load_coordinator(parties / "coordinator" / "coordinator.toml").settings
    strategy = round.join(file, settings).strategy
    state, told = strategy.start(), []
    for number in range(2):
        down = strategy.download(state, name, number)
        head = {"settings": settings.model_dump_json(), "experiment": grids.EXPERIMENT, "digest": down.digest}
        content = pack(head, Update(name, number, 0, down.tensors))
        message = Message(content, dst_node_id=1, message_type=TRAIN)
        context = SimpleNamespace(node_config={app.NODE_KEY: str(file)})
        found, update = unpack(app.train(message, context).content)
        assert update is not None, found
        state, _ = aggregate(strategy, state, [update])
        told.append((federations.comparable(json.loads(found["events"])), digest(update.tensors)))
    return told


def serving(file) -> list[str]:
    """Start a worker in a thread and return what it tells."""
    told, ready = [], threading.Event()
    threading.Thread(target=worker.serve, args=(file, told.append, ready.set), daemon=True).start()
    assert ready.wait(60)
    return told


def test_the_answers_are_the_same_and_the_model_is_loaded_once(content, tmp_path, monkeypatch):
    loaded = []
    load = local_engine.load_model
    monkeypatch.setattr(local_engine, "load_model", lambda *a: loaded.append(a) or load(*a))
    plain = two_rounds(kit_of(content, tmp_path / "plain"))
    assert len(loaded) == 2
    parties = kit_of(content, tmp_path / "warm")
    told = serving(parties / "members" / "one" / "member.toml")
    assert two_rounds(parties) == plain
    assert len(loaded) == 3
    assert [line.split(":")[0] for line in told] == ["ready", "train", "train"]


def test_a_run_of_another_seed_draws_its_model_anew(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    model = round.load_member_file(parties / "members" / "one" / "member.toml").client.model
    models, kept = local_engine.BaseModels(0), None
    for seed, same in ((0, False), (0, True), (1, False)):
        models.reseed(seed)
        found, _ = models.get(model, "causal", "float32")
        assert (found is kept) == same
        kept = found


def test_what_goes_wrong_in_the_worker_is_told_in_the_same_words(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    file = parties / "members" / "one" / "member.toml"
    serving(file)
    settings = load_coordinator(parties / "coordinator" / "coordinator.toml").settings.model_dump_json()
    head = json.dumps({"settings": settings, "experiment": "..", "digest": ""})
    found, tensors = worker.ask(file, "train", head, None)
    assert tensors is None
    assert json.loads(found)["reason"] == "the message holds no tensors; the member's own log says more"
    found, _ = worker.ask(file, "train", "[" * 10**5, None)
    assert json.loads(found)["reason"].startswith("malformed message")


def test_only_its_own_user_may_open_the_socket(content, tmp_path):
    file = kit_of(content, tmp_path / "kit") / "members" / "one" / "member.toml"
    serving(file)
    mode = (file.parent / worker.SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    with pytest.raises(H2TuneError, match="a worker is running already"):
        worker.serve(file, print)


@pytest.mark.parametrize(
    "answer", [b"", b"garbage", b'{"head": 9, "tensors": null}\nshort', b'{"version": "0"}\n']
)
def test_without_a_sound_answer_the_member_does_it_alone(content, tmp_path, answer):
    parties = kit_of(content, tmp_path / "kit")
    name = parties / "members" / "one" / worker.SOCKET

    def lose():
        for _ in range(2):
            end, _ = listener.accept()
            with end:
                end.recv(2**16)
                end.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        with worker._address(name) as short:
            listener.bind(short)
        listener.listen()
        threading.Thread(target=lose, daemon=True).start()
        assert len(two_rounds(parties)) == 2


def test_a_worker_that_was_killed_leaves_nothing_in_the_way(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    file = parties / "members" / "one" / "member.toml"
    with socket.socket(socket.AF_UNIX) as listener, worker._address(file.parent / worker.SOCKET) as short:
        listener.bind(short)
    assert worker.ask(file, "enrol", "{}", None) is None  # nobody listens
    assert serving(file)


def test_the_command_answers_and_puts_its_socket_away(content, tmp_path):
    file = kit_of(content, tmp_path / "kit") / "members" / "one" / "member.toml"
    command = federations.command("deploy", "worker", str(file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout.readline().startswith("ready:")
        found, _ = worker.ask(file, "enrol", "{}", None)
        assert "malformed message (no 'settings')" in json.loads(found)["reason"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not (file.parent / worker.SOCKET).exists()


def test_a_folder_that_lies_deep_has_a_worker_too(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    folder = tmp_path / ("x" * 100)
    (parties / "members" / "one").rename(folder)
    serving(folder / "member.toml")
    found, _ = worker.ask(folder / "member.toml", "enrol", "{}", None)
    assert "no 'settings'" in json.loads(found)["reason"]


def test_the_process_that_hands_a_message_on_imports_nothing_heavy():
    code = "import sys, h2tune.flower.member.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
