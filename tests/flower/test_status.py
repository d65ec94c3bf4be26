"""The state of a run as Prometheus reads it."""

from __future__ import annotations

import re
import stat

import pytest

from h2tune.errors import H2TuneError

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from helpers.grids import Grid

from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.coordinator.status import Status
from h2tune.flower.deploy import credentials

LINE = re.compile(
    r'# (HELP|TYPE) \w+ .+|(\w+)(\{\w+="(?:[^"\\]|\\.)*"(?:,\w+="(?:[^"\\]|\\.)*")*\})? (-?[\d.e+]+)'
)


def samples(file) -> dict[str, float]:
    """Return the value of every sample; fails where a line is not in Prometheus' text format."""
    found = {}
    for line in file.read_text().splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        if match[2]:
            assert match[2] + (match[3] or "") not in found
            found[match[2] + (match[3] or "")] = float(match[4])
    return found


def begun(file, *events) -> Status:
    status = Status(file)
    status.begin("tiny", 3, ["alpha", "beta"], events)
    return status


def test_a_whole_run_ends_with_its_rounds_and_members(parties, coordinator, identity, tmp_path):
    file = tmp_path / "status.prom"
    longer = coordinator.model_copy(
        update={"folder": str(tmp_path / "run"), "deadline": 60.0, "patience": 3.0, "gather": 5.0}
    )
    coordinate(Grid(parties=parties, names=("one", "two")), longer, Status(file))
    found = samples(file)
    assert found["h2tune_rounds"] == found["h2tune_rounds_finished"] == coordinator.server.rounds
    assert (
        found['h2tune_run_state{state="finished"}'] == 1 and found['h2tune_run_state{state="running"}'] == 0
    )
    for name in ("one", "two"):
        assert found[f'h2tune_member_connected{{member="{name}"}}'] == 1
        assert found[f'h2tune_member_updates_total{{member="{name}"}}'] == coordinator.server.rounds
    assert not {"accuracy", "loss", str(parties)} & set(re.findall(r"[\w/]+", file.read_text()))
    assert stat.S_IMODE(file.stat().st_mode) == 0o644  # another user runs node_exporter


def test_failures_count_and_the_last_one_is_shown_on_one_line(tmp_path):
    file = tmp_path / "status.prom"
    status = begun(file, {"event": "run_started"}, {"event": "aggregated", "round": 0, "clients": ["alpha"]})
    status.event(
        {"event": "client_failed", "client": "beta", "round": 0, "reason": 'a "q\\"\n\x1b' + 999 * "x"}
    )
    found = samples(file)
    assert found['h2tune_member_failures_total{member="beta"}'] == 1
    assert found['h2tune_member_last_round{member="alpha"}'] == 1 and found["h2tune_rounds_finished"] == 1
    (reason,) = re.findall(r'last_error_info\{reason="(.*)"\}', file.read_text())
    assert reason.startswith(r"beta: a \"q\\\" ?xxx") and len(reason) < 220


@pytest.mark.parametrize(
    ("error", "shown"),
    [(H2TuneError("too few", where="here"), "here: too few"), (ValueError("/secret"), "ValueError")],
)
def test_the_error_that_ends_a_run_is_shown_without_what_a_foreign_exception_says(tmp_path, error, shown):
    file = tmp_path / "status.prom"
    status = begun(file)
    with pytest.raises(type(error)), status.recorded():
        raise error
    assert samples(file)[f'h2tune_last_error_info{{reason="{shown}"}}'] == 1
    assert samples(file)['h2tune_run_state{state="failed"}'] == 1


def test_the_certificate_s_end_is_shown_and_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    credentials.certificates(tmp_path / "tls", "127.0.0.1")
    file = tmp_path / "status.prom"
    status = begun(file)
    found = samples(file)
    days = (
        found["h2tune_certificate_expiry_timestamp_seconds"] - found["h2tune_updated_timestamp_seconds"]
    ) / 86_400
    assert 824 < days <= 825
    monkeypatch.setattr(
        "h2tune.files.write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full"))
    )
    status.event({"event": "run_started"})
    status.nodes(["alpha"], ["alpha"])
