"""Clients side by side in worker processes: the same to the bit as one after another, resumed and interrupted too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

from h2tune.events import read_events
from h2tune.runs import jobs

CLIENTS = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))
SMALL = {"llama": {"blocks": 1}, "bert": {"blocks": 1}}


def left(run: Path):
    """All that a run leaves: tensors by file and name, and its events without times, sorted by unit."""
    tensors = {
        f"{f.relative_to(run)}:{n}": t for f in run.rglob("*.safetensors") for n, t in load_file(f).items()
    }
    events = federations.comparable(read_events(run / "events.jsonl"))
    return tensors, sorted(events, key=lambda event: event["unit"])


def same(one, other) -> None:
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1] == other[1]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    content = federations.federation(
        folder,
        CLIENTS,
        options=SMALL,
        server={"rounds": 3},
        train={"local_steps": 2},
        experimental={"alone": True},
    )
    file = federations.write(folder, content)
    federations.h2tune("run", str(file), "--out", str(folder / "serial"))
    return file, left(folder / "serial")


@pytest.mark.parametrize("number", [1, 2])
def test_any_number_of_jobs_gives_the_same_to_the_bit(serial, tmp_path, number):
    file, expected = serial
    done = federations.h2tune("run", str(file), "--out", str(tmp_path / "run"), "--jobs", str(number))
    assert "Traceback" not in done.stderr  # of a process that ends
    same(left(tmp_path / "run"), expected)


def seen(name: str) -> str:
    """Return which GPUs a worker process may use, once the others had time to take a call too."""
    time.sleep(0.3)
    return os.environ[name]


@pytest.mark.parametrize(
    ("named", "number", "expected"),
    [
        (None, 0, []),
        (None, 1, ["0"]),
        (None, 2, ["0", "1"]),
        ("5, 3", 2, ["5", "3"]),
        ("GPU-aa,GPU-bb,GPU-cc", 2, ["GPU-aa", "GPU-bb"]),
    ],
)
def test_gpus_have_the_names_that_cuda_knows_them_by(monkeypatch, named, number, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert jobs.gpus() == expected


def test_each_process_sees_one_of_several_gpus(monkeypatch):
    monkeypatch.setattr(jobs, "gpus", lambda: ["5", "3", "4"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with jobs.workers(2) as pool:
        calls = [pool._pool.submit(seen, "CUDA_VISIBLE_DEVICES") for _ in range(8)]
        assert {call.result() for call in calls} == {"5", "3"}


def children(process: subprocess.Popen) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def workers(process: subprocess.Popen) -> list[int]:
    """Return the ids of worker processes, without loky's own tracker."""
    found = []
    for child in children(process):
        line = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        if "popen_loky" in line:
            found.append(child)
    return found


def started(file: Path, out: Path, rounds: int):
    """Start a run with two jobs, and wait until a round is committed."""
    process = subprocess.Popen(
        federations.command("run", str(file), "--out", str(out), "--jobs", "2"),
        env=federations.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    end = time.monotonic() + 600
    while not (out / f"server/round-{rounds:04d}").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


@pytest.mark.timeout(900)
def test_ctrl_c_ends_the_workers_and_a_resumed_run_is_the_same(serial, tmp_path):
    file, expected = serial
    process = started(file, tmp_path / "run", 1)
    ids = workers(process)
    assert len(ids) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "h2tune: interrupted" in said and "Traceback" not in said, said
    assert not any(Path(f"/proc/{one}").exists() for one in ids)
    federations.h2tune("run", str(file), "--out", str(tmp_path / "run"), "--resume", "--jobs", "2")
    same(left(tmp_path / "run"), expected)


@pytest.mark.timeout(900)
def test_a_killed_worker_is_reported_in_words_and_a_run_goes_on_without_jobs(serial, tmp_path):
    file, expected = serial
    process = started(file, tmp_path / "run", 1)
    os.kill(workers(process)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "a worker process was ended by SIGKILL" in said
    assert "--resume" in said and "Traceback" not in said
    federations.h2tune("run", str(file), "--out", str(tmp_path / "run"), "--resume")
    same(left(tmp_path / "run"), expected)
