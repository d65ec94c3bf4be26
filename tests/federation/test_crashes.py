"""A crash at every write and every optimiser step: each is resumed to the uninterrupted result, to the bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

import h2tune
from h2tune import files
from h2tune.events import read_events
from h2tune.federation.run_store import RunStore
from h2tune.training import trainer


class Crash(BaseException):
    """Not an Exception, so that nothing in the product catches it."""


class Boundaries:
    """Counts the places where a crash could leave an operation incomplete, and crashes at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, crash_at: int | None = None) -> None:
        self.count, self.crash_at = 0, crash_at
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "write_bytes"), (Path, "write_text")):
            patch.setattr(owner, name, self.before(getattr(owner, name)))
        patch.setattr(trainer._Phases, "on_step_end", self.before(trainer._Phases.on_step_end))

    def before(self, function):
        def wrapped(*arguments, **named):
            self.count += 1
            if self.count == self.crash_at:
                raise Crash
            return function(*arguments, **named)

        return wrapped


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashes")
    content = federations.federation(
        folder,
        train={"local_steps": 2},
        data={"train": 8, "test": 4},
        options={"llama": {"blocks": 1}, "bert": {"blocks": 1}},
    )
    return federations.write(folder, content)


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory):
    """An uninterrupted run, and how many boundaries it has."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        boundaries = Boundaries(patch)
        h2tune.run(file, out=out)
    return out, boundaries.count


def left(run: Path):
    """All that a run leaves: tensors by file and name, and its events without times."""
    stored = [f for f in run.rglob("*.safetensors") if not any(part.startswith(".") for part in f.parts)]
    tensors = {f"{f.relative_to(run)}:{n}": t for f in stored for n, t in load_file(f).items()}
    return tensors, federations.comparable(read_events(run / "events.jsonl"))


def crash_and_resume(file: Path, whole, out: Path, at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Boundaries(patch, at)
        with pytest.raises(Crash):
            h2tune.run(file, out=out)
    h2tune.run(file, out=out, resume=out.exists())
    (tensors, events), (expected, logged) = left(out), left(whole[0])
    assert tensors.keys() == expected.keys(), at
    assert all(torch.equal(tensors[n], expected[n]) for n in expected), at
    assert events == logged, at


@pytest.mark.parametrize("part", range(4))
def test_a_few_boundaries(file, whole, tmp_path, part):
    """The short form: one boundary out of each quarter."""
    count = whole[1]
    crash_and_resume(file, whole, tmp_path / "run", 1 + part * count // 4 + (7 * part) % (count // 4))


@pytest.mark.parametrize(("owner", "name", "at"), [(Path, "hardlink_to", 1), (RunStore, "remove", 1)])
def test_a_crash_while_files_are_stored_once_or_old_states_removed(tmp_path, monkeypatch, owner, name, at):
    """Of training alone, where both happen first."""
    monkeypatch.setattr(files, "SHARED", 0)
    content = federations.federation(
        tmp_path,
        server={"rounds": 3},
        experimental={"alone": True},
        train={"local_steps": 2},
        data={"train": 8, "test": 4},
        options={"llama": {"blocks": 1}, "bert": {"blocks": 1}},
    )
    file, real, calls = federations.write(tmp_path, content), getattr(owner, name), []
    h2tune.run(file, out=tmp_path / "whole")

    def crashing(*arguments):
        calls.append(arguments)
        if len(calls) == at + 1:
            raise Crash
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, crashing)
        with pytest.raises(Crash):
            h2tune.run(file, out=tmp_path / "run")
    h2tune.run(file, out=tmp_path / "run", resume=True)
    (tensors, events), (expected, logged) = left(tmp_path / "run"), left(tmp_path / "whole")
    assert tensors.keys() == expected.keys() and events == logged
    assert all(torch.equal(tensors[n], expected[n]) for n in expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_boundary(file, whole, tmp_path):
    for at in range(1, whole[1] + 1):
        crash_and_resume(file, whole, tmp_path / f"run-{at}", at)
        print(f"crashed at {at} of {whole[1]} boundaries and resumed", flush=True)
