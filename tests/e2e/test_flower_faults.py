"""Failures at a member, with a real SuperLink, SuperNodes and client processes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess

import pytest
from helpers import deployment, federations

from h2tune.events import read_events

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = (("films", "llama", 4), ("news", "bert", 8), ("feed", "gpt2", 6))
ALL, REST = ["feed", "films", "news"], ["feed", "news"]


@pytest.fixture
def content(tmp_path):
    return federations.federation(
        tmp_path,
        CLIENTS,
        server={"rounds": 3, "min_clients": 2},
        train={"local_steps": 2},
        data={"train": 16, "test": 12},
    )


@contextlib.contextmanager
def running(tmp_path, content, patch=None, worker=None, **coordinator):
    """Yield a deployment without TLS whose run has begun.

    Args:
        tmp_path: A folder.
        content: The federation file.
        patch: A file of `patched` for the processes of films.
        worker: A file of `patched` for a worker of films; by default there is no worker.
        coordinator: Changes of the coordinator's file.
    """
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port, **coordinator)
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        if worker is not None:
            parties.worker("films", worker)
        for name, *_ in CLIENTS:
            parties.supernode(name, patch=patch if name == "films" else None)
        parties.run()
        yield parties


def events_of(parties):
    return read_events(parties.home / "run" / "events.jsonl")


def took_part(parties):
    return [e["clients"] for e in events_of(parties) if e["event"] == "aggregated"]


def failures(parties):
    if not (parties.home / "run" / "events.jsonl").exists():
        return {}
    return {e["round"]: e["reason"] for e in events_of(parties) if e["event"] == "client_failed"}


def private(parties, name: str):
    """Return a member's folder of the run; None before it exists."""
    return next((parties.folder / "members" / name / "private").glob("?" * 32), None)


def at_work(parties, name: str, round_number: int) -> bool:
    """Return whether a client process works on a round: it locks the member's folder and has stored no state."""
    folder = private(parties, name)
    if folder is None or not (folder / f"clients/{name}/state/round-{round_number - 1:04d}").exists():
        return False
    stored = (folder / f"clients/{name}/state/round-{round_number:04d}").exists()
    return (
        not stored
        and f"ROUND {round_number}]" in parties.log(name)
        and deployment.locked(folder / "run.lock")
    )


def test_a_client_process_killed_alone_in_training_is_started_again_in_its_round(tmp_path, content):
    with running(tmp_path, content) as parties:
        parties.until(lambda: at_work(parties, "films", 1) or parties.ended(), 400)
        parties.kill_child("films", "flwr-clientapp")
        parties.until(parties.ended, 400)
        assert took_part(parties) == [ALL, ALL, ALL], parties.tails()
        assert not failures(parties)
        again = [e for e in events_of(parties) if e.get("code") == "sent_again"]
        assert [(e["client"], e["round"]) for e in again] == [("films", 1)]
        assert again[0]["message"] == "it was lost (Flower's code 8); it was asked again"
        own = read_events(private(parties, "films") / "events.jsonl")
        assert [e["round"] for e in own if e["event"] == "client_trained"] == [0, 1, 2]


def test_a_worker_killed_in_training_is_bypassed_in_the_same_round(tmp_path, content):
    with running(tmp_path, content, worker=deployment.PATCHED / "dying.py") as parties:
        parties.until(parties.ended, 400)
        assert took_part(parties) == [ALL, ALL, ALL], parties.tails()
        assert not failures(parties) and not [e for e in events_of(parties) if e["event"] == "warning"]
        assert parties.processes["films-worker"].poll() == -signal.SIGKILL
        assert "continuing without it" in parties.log("films")
        own = read_events(private(parties, "films") / "events.jsonl")
        assert [e["round"] for e in own if e["event"] == "client_trained"] == [0, 1, 2]
        parties.kill("films-worker")
        parties.worker("films")  # the socket of the killed one is replaced


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of 2 MB as films' private folder."""
    folder = tmp_path / "parties" / "members" / "films" / "private"
    mounted = []

    def mount():
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_member_whose_disk_is_full_sits_out_and_comes_back_when_there_is_room(
    tmp_path, content, small_disk
):
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port)
    disk = small_disk()
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for name, *_ in CLIENTS:
            parties.supernode(name)
        parties.run()
        parties.until(lambda: "Sending: train" in parties.log("films") or parties.ended(), 400)
        fill(disk / "filler")
        parties.until(lambda: failures(parties) or parties.ended(), 400)
        (disk / "filler").unlink()
        parties.until(parties.ended, 400)
        assert took_part(parties) == [ALL, REST, ALL], parties.tails()
        (failed,) = failures(parties).items()
        assert failed[0] == 1 and failed[1].startswith("the disk of its folder is full: 0.0 MB are free")
        assert "\n" not in failed[1] and str(folder) not in failed[1]
        own = read_events(private(parties, "films") / "events.jsonl")
        assert [e["round"] for e in own if e["event"] == "client_trained"] == [0, 2]


def test_a_member_that_comes_later_takes_part_from_then_on(tmp_path, content):
    content["server"]["rounds"] = 8
    port = deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port, gather=60.0)
    with deployment.deployment(folder, port) as parties:
        parties.superlink()
        for name in REST:
            parties.supernode(name)
        parties.run()
        log = parties.home / "run" / "events.jsonl"
        parties.until(lambda: (log.exists() and took_part(parties)) or parties.ended(), 400)
        parties.supernode("films")
        parties.until(parties.ended, 400)
        rounds = took_part(parties)
        assert rounds[0] == REST and rounds[-1] == ALL and len(rounds) == 8, parties.tails()
        assert rounds == sorted(rounds, key=len)  # once it is there, it is in every round
        assert not failures(parties)
        own = read_events(private(parties, "films") / "events.jsonl")
        assert [e["round"] for e in own if e["event"] == "client_trained"] == [
            number for number, clients in enumerate(rounds) if "films" in clients
        ]


def test_updates_of_wrong_shape_of_anothers_name_and_of_another_round_are_left_out(tmp_path, content):
    with running(tmp_path, content, patch=deployment.PATCHED / "tampered.py") as parties:
        parties.until(parties.ended, 400)
        assert took_part(parties) == [REST, REST, REST], parties.tails()
        reasons = failures(parties)
        assert "expected" in reasons[0] and "delta." in reasons[0]
        assert "it says it is from 'news'" in reasons[1]
        assert "it is of round 1, not 2" in reasons[2]
        refused = [e["round"] for e in events_of(parties) if e.get("code") == "update_refused"]
        assert refused == [0, 1, 2]
