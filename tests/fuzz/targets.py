"""The fuzz targets: each makes an untrusted input from choices, and asserts how h2tune handles it.

It is accepted, and then it is as good as a valid one, or it is refused with an `H2TuneError`; no other exception.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from fuzz.draws import ODD, Draw, bytes_changed, dumped, pick, structure_changed
from fuzz.samples import (
    CARD,
    CONFIG,
    EVENTS,
    MEMBER,
    MOST,
    ROLES,
    ROUND,
    SETTINGS,
    SPEC,
    STRATEGY,
    good,
    update_bytes,
)
from helpers.grids import channel_over
from helpers.strategies import aggregate

from h2tune.config import load_resolved
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation.channel import Downloads, Reply
from h2tune.federation.messages import HEAD_BYTES, Update, digest, from_bytes, to_bytes
from h2tune.federation.rounds import _accept
from h2tune.federation.run_store import RunStore, _seal
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.roster import Roster
from h2tune.flower.coordinator.tolerant_grid import Answer
from h2tune.flower.files import CoordinatorFile, MemberFile
from h2tune.flower.load import read_settings
from h2tune.flower.messages import FORMAT, text, unpack
from h2tune.report.view import build_view


def update(draw: Draw) -> bool:
    """A client's update, as bytes or by its structure, through parsing and validation."""
    return _through_the_gate(update_bytes(draw))


def message(draw: Draw) -> bool:
    """A client's answer in a round: the coordinator parses, validates, stores and reports head, events and update."""
    events = dumped(draw, structure_changed(draw, EVENTS))
    head = structure_changed(draw, {"events": events, "reason": "x"}, 2)
    content = _content(draw, dumped(draw, head), update_bytes(draw))
    answer = Answer(content)
    with tempfile.TemporaryDirectory() as folder:
        downloads = Downloads(STRATEGY, STRATEGY.start(), ["one"], ROUND)
        try:
            reply = _channel(Path(folder)).read("one", ROUND, answer, downloads.upload_bytes("one", ROUND))
        except H2TuneError as error:
            reply = Reply("one", None, [], str(error))
        assert reply.client == "one"
        recorded, accepted = _accept(STRATEGY, reply, ROUND)
        store = RunStore(Path(folder) / "run")
        store.record("unit", recorded)
        store.close()
        build_view(read_events(store.events_file))
    assert accepted is not None or any(event["event"] == "client_failed" for event in recorded)
    if accepted is not None:
        _is_valid(reply.update)
    return accepted is not None


def enrolment(draw: Draw) -> bool:
    """An unknown node's answer to the enrolment request."""
    card = bytes_changed(draw, dumped(draw, structure_changed(draw, CARD)).encode(), 2).decode(
        errors="surrogateescape"
    )
    head = dumped(draw, structure_changed(draw, {"card": card}, 1))
    with tempfile.TemporaryDirectory() as folder:
        messenger = _channel(Path(folder)).messenger
        messenger.directory.queries["m0"] = 7
        messenger.directory.enrol("m0", Answer(_content(draw, head, b"")))
        joined = messenger.roster.cards
        assert set(joined) <= {"one", "two"} and bool(joined) == bool(messenger.nodes)
        assert bool(joined) != bool(messenger.directory.warnings)
        if joined:  # what is kept is read again after a restart
            assert Roster(messenger.coordinator, Path(folder) / "members.json").cards == joined
    return bool(joined)


def settings(draw: Draw) -> bool:
    """A coordinator's message, as a client parses it, up to reading its data."""
    head = {"settings": dumped(draw, structure_changed(draw, SETTINGS)), "experiment": "0" * 32, "digest": ""}
    content = _content(draw, dumped(draw, structure_changed(draw, head, 1)), update_bytes(draw))
    try:
        found, _ = unpack(content)
        joined = MemberFile.model_validate(MEMBER).joined(read_settings(text(found, "settings")), Path("/"))
    except H2TuneError:
        return False
    assert (
        joined.name == "fuzz" and joined.client[0].model == "/m" and joined.client[0].task.file == "/t.jsonl"
    )
    assert not joined.train.arguments
    return True


def commit(draw: Draw) -> bool:
    """A checkpoint in a run folder that was cut, altered, swapped, or altered and sealed again."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        store.commit("a/b", {"state": good().tensors}, {"events": EVENTS})
        store.close()
        place = Path(folder) / "a" / "b"
        file = place / pick(draw, ("facts.json", "state.safetensors"))
        sealed = draw.integer(0, 2) == 0
        if sealed:
            content = json.loads((place / "facts.json").read_text())
            del content["seal"]
            content = structure_changed(draw, content)
            if isinstance(content, dict):
                content["seal"] = _seal(content)
            (place / "facts.json").write_text(dumped(draw, content))
        else:
            file.write_bytes(bytes_changed(draw, file.read_bytes()))
        found = store.committed("a/b")
    assert sealed or found is None or digest(found[0]["state"]) == digest(good().tensors)
    assert sealed or found is None or found[1] == {"events": EVENTS}
    return found is not None


def log(draw: Draw) -> bool:
    """An altered log: the run is resumed and reported, or an error names the line."""
    lines = [json.dumps(event | {"unit": f"u{i}", "time": 1.0}) for i, event in enumerate(EVENTS)]
    if draw.integer(0, 1):
        lines.insert(
            draw.integer(0, 3),
            dumped(draw, structure_changed(draw, EVENTS[draw.integer(0, 2)] | {"unit": "u9"})),
        )
    data = bytes_changed(draw, ("\n".join(lines) + "\n").encode())
    accepted = True
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.jsonl"
        file.write_bytes(data)
        try:
            build_view(read_events(file))
        except H2TuneError:
            accepted = False
        try:
            RunStore(Path(folder), resume=True).close()
        except H2TuneError:
            accepted = False
    return accepted


def config(draw: Draw) -> bool:
    """The federation file of an untrusted run folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_bytes(bytes_changed(draw, CONFIG.encode(), 8))
        try:
            load_resolved(file)
        except H2TuneError:
            return False
    return True


TARGETS: dict[str, Callable[[Draw], bool]] = {
    target.__name__: target for target in (update, message, enrolment, settings, commit, log, config)
}
"""Name → what returns whether the input was accepted."""


def _through_the_gate(data: bytes) -> bool:
    tracemalloc.start()
    try:
        found = from_bytes(data, MOST)
    except H2TuneError:
        return False
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * (MOST + HEAD_BYTES) + 2**20, peak
    reply = SimpleNamespace(client="one", late=None, update=found, events=[])
    recorded, accepted = _accept(STRATEGY, reply, ROUND)
    assert (accepted is None) == any(event.get("code") == "update_refused" for event in recorded)
    if accepted is not None:
        _is_valid(reply.update)
    return accepted is not None


def _is_valid(found: Update) -> None:
    """Assert, independently of the validation, that an accepted update is one that a client may send."""
    assert (found.client, found.round, found.examples) == ("one", ROUND, 10)
    assert {
        n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in found.tensors.items()
    } == SPEC
    for role in ROLES:
        assert bool(torch.isfinite(found.tensors[f"delta.{role}"]).all())
        for row in found.tensors[f"mask.{role}"].tolist():
            assert sum(byte.bit_count() for byte in row) == 4
    relation = found.tensors["relation"]
    assert bool((relation >= 0).all()) and bool(((relation.sum(0) - 1).abs() < 2e-3).all())
    after, _ = aggregate(STRATEGY, STRATEGY.start(), [found])
    assert bool(torch.isfinite(after["shared"]).all())
    again = from_bytes(to_bytes(found), MOST)
    assert digest(again.tensors) == digest(found.tensors)


def _content(draw: Draw, head: str, data: bytes) -> RecordDict:
    record: dict[str, Any] = {"format": FORMAT, "json": head}
    if draw.integer(0, 7) == 0:
        with contextlib.suppress(TypeError, ValueError):  # what Flower's own records do not hold
            changed = dict(record)
            changed[pick(draw, ("format", "json", "more"))] = pick(draw, ODD)
            ConfigRecord(changed)
            record = changed
    content = RecordDict({pick(draw, ("head",) * 9 + ("x",)): ConfigRecord(record)})
    if data:
        array = Array(pick(draw, ("uint8", "x")), (draw.integer(0, 9),), "safetensors", data)
        content[pick(draw, ("tensors",) * 9 + ("x",))] = ArrayRecord(
            {pick(draw, ("file",) * 9 + ("x",)): array}
        )
    return content


@functools.cache
def _coordinator() -> CoordinatorFile:
    return CoordinatorFile.model_validate(
        SETTINGS
        | {
            "folder": "/nowhere",
            "roles": list(ROLES),
            "member": [{"name": "one", "rank": 2}, {"name": "two"}],
        }
    )


def _channel(folder: Path) -> GridChannel:
    grid: Any = SimpleNamespace(get_nodes=list)
    return channel_over(grid, _coordinator(), folder / "members.json")
