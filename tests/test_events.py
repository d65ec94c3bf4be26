"""Every event that h2tune writes is in the schema, and every event of the schema is written.

test_recorded_runs.py checks the logs of its runs against the schema as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import federations
from helpers.report_events import make_events, with_comparison, with_problems

import h2tune
from h2tune.compare import compare
from h2tune.errors import H2TuneError
from h2tune.events import EVENTS, WARNINGS, check_event, read_events

SOURCE = Path(__file__).resolve().parents[1] / "src" / "h2tune"
THREE = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))
QUICK = {"train": {"local_steps": 1}, "data": {"train": 8, "test": 4}}


def check(log: Path) -> list[str]:
    """Check every event of a log, and return their names."""
    events = read_events(log)
    for event in events:
        check_event(event)
    return [event["event"] for event in events]


def written() -> set[str]:
    """Return the names of events in the source: values of "event" in dictionaries and in calls of a type."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.parent.name == "tasks":
            continue  # a list of words has one too
        for entry in ast.walk(ast.parse(path.read_text())):
            pairs = []
            if isinstance(entry, ast.Dict):
                pairs = [(k.value, v) for k, v in zip(entry.keys, entry.values, strict=True)
                         if isinstance(k, ast.Constant)]  # fmt: skip
            elif isinstance(entry, ast.Call):
                pairs = [(keyword.arg, keyword.value) for keyword in entry.keywords]
            found |= {v.value for k, v in pairs if k == "event" and isinstance(v, ast.Constant)}
    return found


def test_the_schema_has_the_events_of_the_source_and_no_others():
    assert written() == set(EVENTS)


def test_every_warning_code_of_the_schema_is_in_the_source():
    text = "".join(p.read_text() for p in SOURCE.rglob("*.py") if p.name != "events.py")
    assert [code for code in WARNINGS if f'"{code}"' not in text] == []


def test_every_event_has_a_docstring_that_says_when_it_is_written():
    for kind in EVENTS.values():
        assert (kind.__doc__ or "").startswith(("Logged", "The only event"))


def test_a_run_with_a_failure_and_warnings_keeps_to_the_schema(tmp_path):
    settings = {"local_steps": 3, "learning_rate": 1e20}  # too large: losses become nan
    content = federations.federation(tmp_path, server={"rounds": 1}, **{**QUICK, "train": settings})
    content["server"]["min_clients"] = 1
    with pytest.raises(H2TuneError, match="min_clients"):
        h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    assert "client_failed" in check(tmp_path / "run" / "events.jsonl")


@pytest.mark.parametrize(
    "server",
    [
        {"aggregation": "krum", "hostile": 0, "min_clients": 3},
        {"aggregation": "clip", "min_clients": 3},
    ],
)
def test_a_run_with_a_robust_rule_keeps_to_the_schema(tmp_path, server):
    assert "aggregated" in run(tmp_path, federations.federation(tmp_path, THREE, server=server, **QUICK))


@pytest.mark.parametrize("noise", ["server", "member"])
def test_a_run_with_differential_privacy_keeps_to_the_schema(tmp_path, noise):
    pytest.importorskip("dp_accounting", reason="pip install 'h2tune[privacy]'")
    content = federations.federation(
        tmp_path, server={"rounds": 1, "min_clients": 2}, privacy={"noise": noise, "multiplier": 1.0}, **QUICK,
    )  # fmt: skip
    assert "aggregated" in run(tmp_path, content)


def run(folder: Path, content: dict) -> list[str]:
    h2tune.run(federations.write(folder, content), out=folder / "run")
    return check(folder / "run" / "events.jsonl")


def test_a_comparison_keeps_to_the_schema(tmp_path):
    content = federations.federation(tmp_path, server={"rounds": 1}, **QUICK)
    compare(federations.write(tmp_path, content), ["h2tune", "local"], seeds=2, out=tmp_path / "out")
    assert check(tmp_path / "out" / "events.jsonl") == ["compared"]


def test_the_events_made_up_for_the_report_keep_to_the_schema():
    for event in with_comparison(with_problems(make_events())):
        check_event(event)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"client": 3}, "client"), ({"surplus": 1}, "surplus"), ({"event": "unknown"}, "not in the schema")],
)
def test_an_event_that_is_not_of_the_schema_is_refused(change, found):
    event = {"event": "client_failed", "client": "films", "round": 0, "reason": "no memory"}
    check_event(event)
    with pytest.raises(H2TuneError, match=found):
        check_event({**event, **change})


def test_importing_events_loads_no_validator():
    code = "import sys, h2tune.events; assert not {'pydantic', 'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], env=federations.environment(), check=True)
