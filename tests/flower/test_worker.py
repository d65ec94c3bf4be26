"""The worker beside a SuperNode: the same answers, for its own user alone, and a fallback without it."""

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
from h2tune.flower.load import load_coordinator, load_member_file
from h2tune.flower.member import app, worker
from h2tune.flower.member.join import join
from h2tune.flower.messages import TRAIN, pack, unpack


@pytest.fixture
def content(tmp_path, monkeypatch):
    """The content of a federation file with two clients."""
    grids.identify(monkeypatch)
    return federations.federation(tmp_path, train={"local_steps": 1}, data={"train": 8, "test": 4})


def kit_of(content, folder):
    folder.mkdir()
    return grids.lay_out(content, folder)


def two_rounds(parties, name: str = "one"):
    """Return the events and the checksum of the update of a member alone, for each of two rounds."""
    file = parties / "members" / name / "member.toml"
    settings = load_coordinator(parties / "coordinator" / "coordinator.toml").settings
    strategy = join(file, settings).strategy
    state, results = strategy.start(), []
    for number in range(2):
        down = strategy.download(state, name, number)
        head = {"settings": settings.model_dump_json(), "experiment": grids.EXPERIMENT, "digest": down.digest}
        content = pack(head, Update(name, number, 0, down.tensors))
        message = Message(content, dst_node_id=1, message_type=TRAIN)
        context = SimpleNamespace(node_config={app.NODE_KEY: str(file)})
        head, update = unpack(app.train(message, context).content)
        assert update is not None, head
        state, _ = aggregate(strategy, state, [update])
        results.append((federations.comparable(json.loads(head["events"])), digest(update.tensors)))
    return results


def serving(file) -> list[str]:
    """Start a worker in a thread and return its output, line by line."""
    lines, ready = [], threading.Event()
    threading.Thread(target=worker.serve, args=(file, lines.append, ready.set), daemon=True).start()
    assert ready.wait(60)
    return lines


def test_the_answers_are_the_same_and_the_model_is_loaded_once(content, tmp_path, monkeypatch):
    loaded = []
    load = local_engine.load_model
    monkeypatch.setattr(local_engine, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    plain = two_rounds(kit_of(content, tmp_path / "plain"))
    assert len(loaded) == 2
    parties = kit_of(content, tmp_path / "warm")
    lines = serving(parties / "members" / "one" / "member.toml")
    assert two_rounds(parties) == plain
    assert len(loaded) == 3
    assert [line.split(":")[0] for line in lines] == ["ready", "train", "train"]


def test_a_run_of_another_seed_loads_its_model_again(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    model = load_member_file(parties / "members" / "one" / "member.toml").client.model
    models, before = local_engine.BaseModels(0), None
    for seed, same in ((0, False), (0, True), (1, False)):
        models.reseed(seed)
        loaded, _ = models.get(model, "causal", "float32")
        assert (loaded is before) == same
        before = loaded


def test_an_error_in_the_worker_has_the_same_reason(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    file = parties / "members" / "one" / "member.toml"
    serving(file)
    settings = load_coordinator(parties / "coordinator" / "coordinator.toml").settings.model_dump_json()
    head = json.dumps({"settings": settings, "experiment": "..", "digest": ""})
    answer, tensors = worker.ask(file, "train", head, None)
    assert tensors is None
    assert json.loads(answer)["reason"] == "the message has no tensors; the member's own log says more"
    answer, _ = worker.ask(file, "train", "[" * 10**5, None)
    assert json.loads(answer)["reason"].startswith("malformed message")


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
def test_without_a_valid_answer_of_the_worker_the_member_continues_without_it(content, tmp_path, answer):
    parties = kit_of(content, tmp_path / "kit")
    name = parties / "members" / "one" / worker.SOCKET

    def answer_twice():
        for _ in range(2):
            end, _ = listener.accept()
            with end:
                end.recv(2**16)
                end.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        with worker.short_address(name) as short:
            listener.bind(short)
        listener.listen()
        threading.Thread(target=answer_twice, daemon=True).start()
        assert len(two_rounds(parties)) == 2


def test_the_socket_of_a_killed_worker_is_replaced(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    file = parties / "members" / "one" / "member.toml"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        worker.short_address(file.parent / worker.SOCKET) as short,
    ):
        listener.bind(short)
    assert worker.ask(file, "enrol", "{}", None) is None  # nobody listens
    assert serving(file)


def test_the_command_answers_and_removes_its_socket(content, tmp_path):
    file = kit_of(content, tmp_path / "kit") / "members" / "one" / "member.toml"
    command = federations.command("deploy", "worker", str(file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout.readline().startswith("ready:")
        answer, _ = worker.ask(file, "enrol", "{}", None)
        assert "malformed message (no 'settings')" in json.loads(answer)["reason"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not (file.parent / worker.SOCKET).exists()


def test_a_folder_with_a_long_path_has_a_worker_too(content, tmp_path):
    parties = kit_of(content, tmp_path / "kit")
    folder = tmp_path / ("x" * 100)
    (parties / "members" / "one").rename(folder)
    serving(folder / "member.toml")
    answer, _ = worker.ask(folder / "member.toml", "enrol", "{}", None)
    assert "no 'settings'" in json.loads(answer)["reason"]


def test_the_process_that_passes_a_message_on_imports_nothing_heavy():
    code = "import sys, h2tune.flower.member.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
