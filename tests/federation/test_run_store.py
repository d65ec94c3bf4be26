"""What a run folder holds is used only if it is what was written there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import federations
from hypothesis import given
from hypothesis import strategies as st

import h2tune
from h2tune.errors import H2TuneError
from h2tune.federation.run_store import RunStore
from h2tune.runs.folder import read_run

TENSORS = {"state": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}}
FACTS = {"events": [{"event": "x", "loss": 0.1}], "examples": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    one = RunStore(tmp_path_factory.mktemp("store"))
    yield one
    one.close()


@given(st.sampled_from(["facts.json", "state.safetensors"]), st.data())
def test_any_byte_that_is_altered_or_missing_is_noticed(store, name, data):
    store.commit("server/round-0001", TENSORS, FACTS)
    file = store.folder / "server" / "round-0001" / name
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        other = data.draw(st.integers(1, 255))
        file.write_bytes(content[:place] + bytes([content[place] ^ other]) + content[place + 1 :])
    else:
        file.write_bytes(content[:place])
    assert store.committed("server/round-0001") is None
    assert store.is_damaged("server/round-0001")
    file.write_bytes(content)
    tensors, facts = store.committed("server/round-0001")
    assert facts == FACTS and torch.equal(tensors["state"]["a"], TENSORS["state"]["a"])


def test_spacing_that_is_altered_is_noticed(store):
    store.commit("server/round-0002", TENSORS, FACTS)
    file = store.folder / "server" / "round-0002" / "facts.json"
    file.write_text(file.read_text().replace(", ", ",\t", 1))
    assert store.committed("server/round-0002") is None


def test_a_commit_of_another_place_is_not_taken(store):
    store.commit("clients/one/state/round-0000", TENSORS, FACTS)
    shutil.copytree(store.folder / "clients/one", store.folder / "clients/two")
    assert store.committed("clients/one/state/round-0000") is not None
    assert store.committed("clients/two/state/round-0000") is None
    assert not store.is_damaged("clients/three/state/round-0000")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    file = federations.write(folder, federations.federation(folder, server={"rounds": 3}))
    h2tune.run(file, out=folder / "run")
    return file, folder / "run"


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_damaged_round_of_the_server_is_done_again_from_the_last_good_one(finished, tmp_path):
    file, run = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    last = copy / "server" / "round-0003" / "state.safetensors"
    before = last.read_bytes()
    cut(last)
    h2tune.run(file, out=copy, resume=True)
    assert last.read_bytes() == before


def test_a_damaged_private_state_is_refused_by_name(finished, tmp_path):
    file, run = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    cut(copy / "clients" / "one" / "state" / "round-0002" / "private.safetensors")
    with pytest.raises(H2TuneError, match="state of client 'one' after round 2"):
        h2tune.run(file, out=copy, resume=True)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"event": "x"}', b'{"unit": 1}', b"\xff", b"[" * 10**5])
def test_a_log_that_was_altered_is_refused_with_its_line(tmp_path, line):
    store = RunStore(tmp_path)
    store.record("one", [{"event": "a"}])
    store.close()
    with (tmp_path / "events.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(H2TuneError, match="line 2: this line is not an event"):
        RunStore(tmp_path, resume=True)


def test_a_run_folder_whose_settings_were_altered_is_refused(tmp_path):
    (tmp_path / "config.toml").write_text("name = [")
    with pytest.raises(H2TuneError, match="not valid TOML"):
        read_run(tmp_path)


def test_a_run_that_is_killed_again_and_again_before_it_goes_on_loses_no_event(tmp_path):
    store = RunStore(tmp_path)
    for unit in ("one", "two", "three"):
        store.record(unit, [{"event": "a"}, {"event": "b"}])
    lines = store.events_file.read_bytes()
    for _ in range(3):
        store._lock.close()  # as a kill does
        store = RunStore(tmp_path, resume=True)
        assert store.logged == {"one", "two"}
    store.record("four", [{"event": "c"}])  # another client's answer came first
    store._lock.close()
    store = RunStore(tmp_path, resume=True)
    assert store.logged == {"one", "two", "four"}
    store.close()
    assert lines.splitlines()[-2:] == store.events_file.read_bytes().splitlines()[-2:]
    store = RunStore(tmp_path, resume=True)
    store.record("three", [{"event": "a"}, {"event": "b"}])
    store.close()
    units = [json.loads(line)["unit"] for line in store.events_file.read_text().splitlines()]
    assert units == ["one", "one", "two", "two", "four", "three", "three"]
    assert not (tmp_path / "last-unit.jsonl").exists()


def test_what_a_member_may_read_names_no_option_that_it_lacks():
    """Across machines nobody types `h2tune run`."""
    source = Path(h2tune.__file__).parent
    lines = [
        line.strip()
        for folder in ("flower/member", "flower/coordinator", "federation")
        for path in (source / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"--(resume|out)\b", line) and "(h2tune run: " not in line
    ]
    assert len(lines) == 1 and "holds a run already" in lines[0]  # members and coordinators always resume
