"""Runs that were recorded before the code was laid out anew: events, messages and results are the same, to the bit.

`python tests/test_recorded_runs.py` records them again; do so only when a change of results is intended,
and say so in CHANGELOG.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import federations, tiny

import h2tune
import h2tune.seeds
from h2tune.events import check_event, read_events

RECORDED = Path(__file__).resolve().parent / "recorded" / "runs.json"
THREE = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))


def embedded(folder: Path) -> Path:
    """Masks, relation and alternation as in the paper; every client alone as well."""
    content = federations.federation(folder, server={"rounds": 3}, experimental={"alone": True})
    return run(folder, content)


def anchored(folder: Path) -> Path:
    """The default basis, int8 on the wire, a start from labels, and a G for each client."""
    content = federations.on_anchored_basis(folder, rounds=2, wire_dtype="int8")
    content["experimental"] |= {"increments": "relevance", "start": "labels"}
    return run(folder, content)


def robust(folder: Path) -> Path:
    server = {"rounds": 2, "min_clients": 3, "aggregation": "trimmed_mean", "participation": 1.0}
    return run(folder, federations.federation(folder, THREE, server=server))


def baseline(folder: Path) -> Path:
    return run(folder, federations.federation(folder, THREE, server={"rounds": 2, "strategy": "flora"}))


def secure(folder: Path) -> Path:
    """Secure aggregation on one machine."""
    pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
    server = {"rounds": 2, "min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    return run(folder, federations.federation(folder, THREE, server=server))


def flower(folder: Path) -> Path:
    """Members across machines, on a grid in memory."""
    pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
    return across_machines(folder, federations.on_anchored_basis(folder, rounds=2), ("one", "two"))


def flower_secure(folder: Path) -> Path:
    pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
    pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
    server = {"rounds": 2, "min_clients": 2, "weighting": "uniform", "secure_aggregation": True}
    content = federations.federation(
        folder, THREE, server=server, train={"local_steps": 2}, data={"train": 8, "test": 4}
    )
    return across_machines(folder, content, ("one", "two", "three"))


RUNS: dict[str, Callable[[Path], Path]] = {
    f.__name__: f for f in (embedded, anchored, robust, baseline, secure, flower, flower_secure)
}


@contextlib.contextmanager
def anywhere(folder: Path) -> Iterator[None]:
    """Take the temporary folder out of what seeds are derived from: a model's path is part of it."""
    place = str(folder).encode()
    with pytest.MonkeyPatch.context() as patch:
        sha256 = types.SimpleNamespace(sha256=lambda data: hashlib.sha256(data.replace(place, b"")))
        patch.setattr(h2tune.seeds, "hashlib", sha256)
        yield


def run(folder: Path, content: dict[str, Any]) -> Path:
    h2tune.run(federations.write(folder, content), out=folder / "run")
    return folder / "run"


def across_machines(folder: Path, content: dict[str, Any], names: tuple[str, ...]) -> Path:
    from helpers.grids import Grid, coordinator_of, identify, lay_out

    from h2tune.flower.coordinator.app import coordinate

    parties = lay_out(content, folder)
    with pytest.MonkeyPatch.context() as patch:
        identify(patch)
        grid = Grid(parties, names=names)
        found: Path = coordinate(grid, coordinator_of(parties, deadline=60.0, patience=3.0, gather=5.0))
    return found


def facts(folder: Path, found: Path) -> list[str]:
    """Return a line for each event, with a checksum of what it says, and one for each tensor file of the server."""
    lines = []
    for line in (found / "events.jsonl").read_text().splitlines():
        event = {k: v for k, v in json.loads(line).items() if k not in ("time", "seconds", "version")}
        if event["event"] == "aggregated" and "secure_aggregation" in event:
            event["secure_aggregation"] = sorted(event["secure_aggregation"])  # keys are new in each run
        for later in ("environment", "agreement", "with_others", "left_out"):  # are said since later
            event.pop(later, None)
        for client in event["clients"] if event["event"] == "run_started" else []:
            client.pop("unused", None)  # is said since later
        for sent in event.get("sent", []):
            if sent["dtype"] == "int64":
                del sent["sha256"]  # under masks, which are new in each run
        text = json.dumps(event, sort_keys=True).replace(str(folder), "")
        lines.append(f"{event['event']} {event.get('client', '')} {short(text.encode())}")
    for file in sorted(found.glob("server/*/*.safetensors")):
        lines.append(f"{file.relative_to(found)} {short(file.read_bytes())}")
    for file in sorted(found.glob("clients/*/*/*.safetensors")):
        lines.append(f"{file.relative_to(found)} {short(file.read_bytes())}")
    return lines


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def arithmetic() -> str:
    """Return a checksum of what this machine's processor and libraries make of a forward and a backward pass."""
    found = b""
    for model in (tiny.causal("llama"), tiny.classifier("bert")):
        tokens = torch.arange(48).reshape(4, 12) % 60
        model(tokens).logits.log_softmax(-1).sum().backward()
        found += b"".join(p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None)
    values = torch.linalg.eigh(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))
    return short(found + values.eigenvalues.numpy().tobytes() + values.eigenvectors.numpy().tobytes())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_recorded_one(name, tmp_path):
    recorded = json.loads(RECORDED.read_text())
    with anywhere(tmp_path):
        found = RUNS[name](tmp_path)
        lines, expected = facts(tmp_path, found), recorded["runs"][name]
    for log in tmp_path.rglob("events.jsonl"):  # of the run, and of members that keep one themselves
        for event in read_events(log):
            check_event(event)
    assert [line.split()[0] for line in lines] == [line.split()[0] for line in expected]
    if recorded["arithmetic"] != arithmetic():
        pytest.skip("this processor rounds otherwise than the one that the runs were recorded on")
    assert lines == expected


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    runs = {}
    for name, start in RUNS.items():
        with tempfile.TemporaryDirectory() as place, anywhere(Path(place)):
            runs[name] = facts(Path(place), start(Path(place)))
            print(name, len(runs[name]), file=sys.stderr)
    RECORDED.write_text(json.dumps({"arithmetic": arithmetic(), "runs": runs}, indent=1) + "\n")
