"""Real processes killed at random moments: each run is resumed, and gives the result of an uninterrupted one."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest
import torch
from helpers import federations, processes
from safetensors.torch import load_file

from h2tune.events import read_events

KILLS = int(os.environ.get("KILLS", "200"))
KILLS_A_RUN = 8
"""Kills that a run gets at most before it is left to finish."""


def left(run):
    """All that a run leaves: tensors by file and name, and its events without times."""
    files = [f for f in run.rglob("*.safetensors") if not any(part.startswith(".") for part in f.parts)]
    tensors = {f"{f.relative_to(run)}:{n}": t for f in files for n, t in load_file(f).items()}
    return tensors, federations.comparable(read_events(run / "events.jsonl"))


def wait(process, folder, draw: random.Random, lasts: float) -> None:
    """Return at a random moment: any of a run's, or (every second time) one within a stage."""
    end = time.monotonic() + draw.uniform(0.05, lasts)
    stage = draw.choice([None] * len(processes.STAGES) + list(processes.STAGES))
    while time.monotonic() < end and process.exitcode is None:
        if stage is not None and stage_of(folder) == stage:
            process.join(draw.uniform(0, 0.03))
            return
        process.join(0.002 if stage is not None else end - time.monotonic())


def stage_of(folder) -> str:
    file = folder / "stage"
    return file.read_text().strip() if file.exists() else ""


def start(file, folder, resume: bool):
    arguments = ("run", str(file), "--out", str(folder / "run"), *(["--resume"] if resume else []))
    return processes.start(arguments, folder / "text", processes.record_stage(folder / "stage"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_killed_at_random_moments_a_run_ends_as_an_uninterrupted_one(tmp_path):
    """KILLS processes in all; prints where they were killed."""
    content = federations.federation(
        tmp_path,
        server={"rounds": 3},
        experimental={"alone": True},
        train={"local_steps": 2},
        options={"llama": {"blocks": 1}, "bert": {"blocks": 1}},
    )
    file = federations.write(tmp_path, content)
    whole = tmp_path / "whole"
    whole.mkdir()
    federations.h2tune("--help")  # starts the server of processes, which imports for seconds
    began = time.monotonic()
    process = start(file, whole, resume=False)
    process.join()
    lasts = time.monotonic() - began
    assert process.exitcode == 0, (whole / "text.err").read_text()
    tensors, events = left(whole / "run")
    draw, killed, runs = random.Random(0), Counter(), 0
    while killed.total() < KILLS:
        folder = tmp_path / f"run-{runs}"
        folder.mkdir()
        finished = False
        for attempt in range(KILLS_A_RUN + 1):
            process = start(file, folder, resume=attempt > 0 and (folder / "run" / "events.jsonl").exists())
            if attempt < KILLS_A_RUN:
                wait(process, folder, draw, lasts)
            else:
                process.join()
            if process.exitcode is None:
                process.kill()
                process.join()
                killed[stage_of(folder) or "starting"] += 1
            elif finished := process.exitcode == 0:
                break
            else:
                pytest.fail(f"run {runs}: {(folder / 'text.err').read_text()}")
        assert finished, f"run {runs} was killed {KILLS_A_RUN} times and did not finish"
        found, log = left(folder / "run")
        assert found.keys() == tensors.keys(), f"run {runs}"
        assert all(torch.equal(found[n], tensors[n]) for n in tensors), f"run {runs}"
        assert log == events, f"run {runs}"
        runs += 1
        print(f"{killed.total()} kills in {runs} runs: {dict(killed)}", flush=True)
