"""The audit log: each change to it shows, and each answer of a member and each event of a coordinator is in it."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from helpers.grids import EXPERIMENT

from h2tune.cli import main
from h2tune.federation.messages import Update, to_bytes
from h2tune.federation.run_store import RunStore
from h2tune.flower import audit
from h2tune.flower.deploy.credentials import node_key
from h2tune.flower.member.record import log_answer


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        node_key(folder / name, name)
    return folder


@pytest.fixture
def log(tmp_path, keys):
    path = tmp_path / audit.FILE
    for number in range(5):
        audit.append(path, "answered", keys / "own", round=number)
    return path


def public(keys, name: str) -> bytes:
    return (keys / f"{name}.pub").read_bytes()


def test_a_log_as_it_was_written_has_no_fault(log, keys):
    found = audit.verify(log, public(keys, "own"))
    assert not found.faults and found.signed == 5
    assert [entry["round"] for entry in found.entries] == list(range(5))


def test_another_key_did_not_sign_it(log, keys):
    assert len(audit.verify(log, public(keys, "other")).faults) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines[:2], lines[1], *lines[2:]],
        lambda lines: lines[1:],
        lambda lines: [lines[0].replace(b'"round": 0', b'"round": 7'), *lines[1:]],
        lambda lines: [*lines[:4], lines[4].replace(b'"round": 4', b'"round": 7')],
        lambda lines: [*lines[:4], lines[4][:-20]],
    ],
    ids=["left out", "swapped", "repeated", "beginning gone", "first altered", "last altered", "cut off"],
)
def test_every_change_shows(log, keys, spoil):
    log.write_bytes(b"".join(spoil(log.read_bytes().splitlines(keepends=True))))
    assert audit.verify(log, public(keys, "own")).faults


def three_lines() -> bytes:
    lines = [b""]
    for number in range(3):
        entry = {"kind": "answered", "round": number, "time": 1.5, "previous": audit.checksum(lines[-1])}
        lines.append(json.dumps(entry).encode() + b"\n")
    return b"".join(lines)


LINES = three_lines()


@settings(max_examples=60)
@given(st.data())
def test_no_byte_can_be_changed(tmp_path_factory, data):
    path, whole = tmp_path_factory.mktemp("log") / audit.FILE, LINES
    last = whole.rstrip(b"\n").rfind(b"\n")  # without a signature, the last line may still be another
    place = data.draw(st.integers(0, last))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    path.write_bytes(whole)
    assert not audit.verify(path).faults
    path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
    assert audit.verify(path).faults


def test_a_line_that_a_crash_cut_off_is_a_fault_and_the_log_goes_on_after_it(log, keys):
    log.write_bytes(log.read_bytes()[:-30])
    audit.append(log, "answered", keys / "own", round=9)
    found = audit.verify(log, public(keys, "own"))
    assert found.faults == ["line 5 is no entry, or was cut off by a crash"]
    assert found.entries[-1]["round"] == 9


def test_entries_of_several_processes_follow_each_other(tmp_path):
    path = tmp_path / audit.FILE
    threads = [
        threading.Thread(target=lambda: [audit.append(path, "answered", round=n) for n in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = audit.verify(path)
    assert not found.faults and len(found.entries) == 80


def test_an_answer_is_logged_with_checksums_and_without_its_content(tmp_path, keys):
    path, update = tmp_path / audit.FILE, to_bytes(Update("one", 3, 0, {"shared": torch.ones(2)}))
    head = json.dumps({"settings": "{}", "experiment": EXPERIMENT, "secret": "x"})
    log_answer(path, "train", (head, update), ('{"events": "[accuracy]"}', b"tensors"), keys / "own")
    log_answer(path, "train", ("[" * 10**5, b"x" * 20), ('{"reason": "no"}', None), keys / "own")
    answered, refused = audit.verify(path, public(keys, "own")).entries
    assert answered["kind"] == "answered" and answered["experiment"] == EXPERIMENT
    assert (answered["client"], answered["round"]) == ("one", "3")
    assert answered["tensors"] == {"bytes": 7, "sha256": hashlib.sha256(b"tensors").hexdigest()}
    assert answered["settings"] == hashlib.sha256(b"{}").hexdigest()
    assert "accuracy" not in path.read_text() and "secret" not in path.read_text()
    assert refused["kind"] == "refused" and refused["reason"] == "no"


@pytest.mark.parametrize(
    "head", ['{"settings": "\\ud800", "client": "\\ud800"}', "null", '{"round": [1]}', ""]
)
def test_any_message_can_be_logged(tmp_path, head):
    path = tmp_path / audit.FILE
    log_answer(
        path, "train", (head, (2**63).to_bytes(8, "little")), (json.dumps({"reason": "\ud800"}), None), None
    )
    assert len(audit.verify(path).entries) == 1 and not audit.verify(path).faults


def run_store(folder):
    store = RunStore(folder, resume=True)
    store.follow = audit.follow(store.events_file, folder / audit.FILE)
    return store


def test_each_event_of_a_coordinator_is_in_its_log_also_after_a_crash(tmp_path):
    folder = tmp_path / "run"
    store = run_store(folder)
    store.record("a", [{"event": "run_started"}])
    store.follow = None  # a crash between the two files
    store.record("b", [{"event": "client_failed", "client": "one", "round": 0, "reason": "x"}])
    store.record("c", [{"event": "aggregated", "round": 0}])
    store.close()
    assert audit.missing_events(store.events_file, audit.verify(folder / audit.FILE))
    for _ in range(2):
        store = run_store(folder)  # it takes the last unit back, and writes it again
        store.record("c", [{"event": "aggregated", "round": 0}])
        store.close()
    found = audit.verify(folder / audit.FILE)
    kinds = [entry.get("event", entry["kind"]) for entry in found.entries]
    assert kinds == ["run_started", "client_failed", "aggregated", "withdrawn", "aggregated"]
    assert not found.faults + audit.missing_events(store.events_file, found)
    text = store.events_file.read_text()
    store.events_file.write_text(text.replace('"reason": "x"', '"reason": "y"'))
    assert audit.missing_events(store.events_file, found) == [
        "event 2 is not in the audit log", "event 2 of the audit log is gone",
    ]  # fmt: skip


@pytest.mark.parametrize(("place", "word"), [(0, "run_started"), (1, "client_failed")])
def test_an_event_that_is_altered_stays_a_fault_after_restarts(tmp_path, place, word):
    folder = tmp_path / "run"
    store = run_store(folder)
    for unit, event in (("a", "run_started"), ("b", "client_failed"), ("c", "aggregated")):
        store.record(unit, [{"event": event}])
    store.close()
    text = store.events_file.read_text()
    store.events_file.write_text(text.replace(word, word.upper()))
    for _ in range(2):
        run_store(folder).close()
    found = audit.verify(folder / audit.FILE)
    assert f"event {place + 1} of the audit log is gone" in audit.missing_events(store.events_file, found)


def test_the_command_says_what_it_found(log, keys):
    runner = CliRunner()
    found = runner.invoke(main.app, ["deploy", "verify", str(log.parent), "--key", str(keys / "own.pub")])
    assert found.exit_code == 0 and "entries 5, 5 signed with" in found.stdout
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[1:]))
    found = runner.invoke(main.app, ["deploy", "verify", str(log.parent)])
    assert found.exit_code != 0 and "FAIL  line 1 does not follow the line before it" in found.stdout
