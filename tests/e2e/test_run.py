"""Runs through the real command line, on tiny models."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
import torch
from helpers import federations, processes
from safetensors.torch import load_file

from h2tune.events import read_events


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A federation run once: its file and its run folder."""
    folder = tmp_path_factory.mktemp("federation")
    file = federations.write(
        folder, federations.federation(folder, server={"rounds": 3}, experimental={"alone": True})
    )
    result = subprocess.run(  # the installed command itself
        federations.command("run", str(file), "--out", str(folder / "run"), "--strict"),
        env=federations.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return file, folder / "run", result.stdout


def tensors(run):
    """Return every tensor that a run leaves: server, private states, adapters."""
    files = [*run.glob("server/*/state.safetensors"), *run.glob("clients/*/state/*/private.safetensors")]
    files += [*run.glob("clients/*/adapter/*.safetensors"), *run.glob("clients/*/lora/*.safetensors")]
    assert files
    return {f"{f.relative_to(run)}:{n}": t for f in files for n, t in load_file(f).items()}


def same(one, two) -> bool:
    left, right = tensors(one), tensors(two)
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def events(run):
    return federations.comparable(read_events(run / "events.jsonl"))


def test_a_run_trains_aggregates_and_reports(finished):
    _, run, output = finished
    assert "federated" in output
    log = read_events(run / "events.jsonl")
    assert not [e for e in log if e["event"] in ("warning", "client_failed")]
    assert [e["round"] for e in log if e["event"] == "aggregated" and e["stage"] == "trained"] == [0, 1, 2]
    assert all(e["change"] > 0 for e in log if e["event"] == "aggregated")
    trained = [e for e in log if e["event"] == "client_trained"]
    assert len(trained) == 2 * 3 * 2  # two clients, three rounds, federated and alone
    for event in trained:
        assert event["received_matches"]
        assert all(
            distance > 0 for kind, distance in event["moved"].items() if kind != "relation" or event["round"]
        )
        assert {"delta", "scores", "relation", "down", "up"} - {"scores"} <= event["moved"].keys()
        names = {entry["name"].split(".")[0] for entry in event["sent"]}
        assert names <= {"delta", "mask", "relation"}  # A, B, S, heads and data never leave
    assert (run / "report.html").stat().st_size > 1000
    for name in ("one", "two"):
        assert (run / "clients" / name / "lora" / "adapter_config.json").exists()


def test_inspect_predicts_exactly_what_the_run_records(finished):
    from h2tune.config import load
    from h2tune.runs.inspect import inspect

    file, run, _ = finished
    log = read_events(run / "events.jsonl")
    for client in inspect(load(file)).clients:
        started = next(c for c in log[0]["clients"] if c["name"] == client["name"])
        assert client["trainable_parameters"] == started["trainable_parameters"]
        mine = [e for e in log if e["event"] == "client_trained" and e["client"] == client["name"]]
        for event in (e for e in mine if e["stage"] == "trained"):
            assert event["bytes_up"] == client["bytes_up"] == sum(entry["bytes"] for entry in event["sent"])
            assert event["bytes_down"] == client["bytes_down"][event["round"]]


def test_trainable_parameters_are_counted_right(finished):
    from h2tune.config import load
    from h2tune.federation.attach import attach_adapter
    from h2tune.models import load_model
    from h2tune.runs.build import build_strategy
    from h2tune.runs.enrol import enrol_all, load_client
    from h2tune.runs.ranks import trainable

    federation = load(finished[0])
    seen, enrolments, size, slots = enrol_all(federation)
    strategy = build_strategy(federation, enrolments, size, slots)
    for s, e in zip(seen, enrolments, strict=True):
        base = load_model(s.client.model, s.kind, "float32", 0)
        phases = attach_adapter(base, load_client(s, e, federation), strategy, None).phases()
        counted = sum(p.numel() for group in phases.values() for p in group.values())
        assert counted == trainable(s, e.rank, size, slots)


def test_two_runs_with_one_seed_are_equal_and_another_order_changes_nothing(finished, tmp_path):
    file, run, _ = finished
    import tomllib

    content = tomllib.loads(file.read_text())
    content["client"].reverse()
    again = federations.write(tmp_path, content)
    federations.h2tune("run", str(again), "--out", str(tmp_path / "run"))
    assert same(run, tmp_path / "run")
    assert events(run) == events(tmp_path / "run")


def test_another_seed_gives_another_run(finished, tmp_path):
    file, run, _ = finished
    federations.h2tune(
        "run", str(file), "--set", "seed=1", "--set", "experimental.alone=false", "--out", str(tmp_path / "r")
    )
    left, right = tensors(run), tensors(tmp_path / "r")
    assert any(not torch.equal(left[n], right[n]) for n in left.keys() & right.keys())


def test_resume_of_a_finished_run_does_nothing_and_a_second_run_is_refused(finished):
    file, run, _ = finished
    before, log = tensors(run), (run / "events.jsonl").read_text()
    refused = federations.h2tune("run", str(file), "--out", str(run), check=False)
    assert refused.returncode == 2 and "--resume" in refused.stderr and "Traceback" not in refused.stderr
    federations.h2tune("run", str(file), "--out", str(run), "--resume")
    after = tensors(run)
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert federations.comparable(map(json.loads, log.splitlines())) == events(run)
    other = federations.h2tune(
        "run", str(file), "--out", str(run), "--resume", "--set", "seed=9", check=False
    )
    assert other.returncode == 2 and "seed" in other.stderr


@pytest.mark.parametrize("where", ["training", "aggregation", "writing", "logging"])
def test_a_killed_run_resumes_to_the_same_result(finished, tmp_path, where):
    """kill -9 in training, in aggregation, while writing tensors and while logging; then --resume."""
    file, run, _ = finished
    mark, out = tmp_path / "reached", tmp_path / "run"
    process = processes.start(
        ("run", str(file), "--out", str(out)), tmp_path / "text", processes.pause_at(where, mark)
    )
    deadline = time.time() + 120
    while not mark.exists():
        assert process.is_alive(), (tmp_path / "text.err").read_text()
        assert time.time() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with (out / "events.jsonl").open("a") as stream:
        stream.write('{"event": "torn')  # what a crash in the middle of a write leaves
    federations.h2tune("run", str(file), "--out", str(out), "--resume")
    assert same(run, out)
    assert events(run) == events(out)
