"""Differential privacy in a run: what is refused, what is reported, what a resumed run does."""

from __future__ import annotations

import json

import pytest
from helpers import federations

import h2tune
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.flower.files import MemberFile, Settings
from h2tune.flower.member.round import without_metrics
from h2tune.runs.build import check_privacy

CLIENTS = (("one", "llama", 4), ("two", "llama", 2))


def content(folder, noise="server", server=None, experimental=None, **keys):
    return federations.federation(
        folder,
        (*CLIENTS, ("three", "llama", 2)) if (server or {}).get("min_clients") == 3 else CLIENTS,
        server={"min_clients": 2, **(server or {})},
        experimental=experimental or {},
        privacy={"noise": noise, "clip": 0.5, "multiplier": 2.0, **keys},
    )


def aggregated(run):
    return [e for e in read_events(run / "events.jsonl") if e["event"] == "aggregated"]


@pytest.mark.parametrize("noise", ["server", "member"])
def test_a_run_tells_what_each_round_spent(tmp_path, noise):
    file = federations.write(
        tmp_path, content(tmp_path, noise, experimental={"alone": True}, target_epsilon=20.0)
    )
    h2tune.run(
        file, out=tmp_path / "run", strict=True
    )  # strict: what was learned is what was sent, before noise
    events = [e["privacy"] for e in aggregated(tmp_path / "run") if e["stage"] == "trained"]
    assert len(events) == 2 and events[0]["epsilon"] < events[1]["epsilon"] < 20
    assert all(t["delta"] == 1e-5 and t["noise"] == noise and not t["held_back"] for t in events)
    assert all("privacy" not in e for e in aggregated(tmp_path / "run") if e["stage"] == "alone")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Differential privacy" in page and f"{events[1]['epsilon']:.2f}"[:3] in page
    sent = {
        t["name"].split(".")[0]
        for e in read_events(tmp_path / "run" / "events.jsonl")
        if e["event"] == "client_trained" and e["stage"] == "trained"
        for t in e["sent"]
    }
    assert sent == ({"noised"} if noise == "member" else {"delta"})


@pytest.mark.parametrize("noise", ["server", "member"])
def test_a_resumed_run_keeps_what_was_released_and_refuses_to_exceed_its_target(tmp_path, noise):
    file = federations.write(tmp_path, content(tmp_path, noise, target_epsilon=6.0))
    h2tune.run(file, out=tmp_path / "run")
    state = tmp_path / "run" / "server" / "round-0002" / "state.safetensors"
    before = state.read_bytes()
    with pytest.raises(H2TuneError, match="above target_epsilon"):
        h2tune.run(file, out=tmp_path / "run", resume=True, overrides=["server.rounds=9"])
    h2tune.run(file, out=tmp_path / "run", resume=True, overrides=["server.rounds=3"])
    assert state.read_bytes() == before
    events = aggregated(tmp_path / "run")
    assert [e["round"] for e in events] == [0, 1, 2]
    assert events[1]["privacy"]["epsilon"] < events[2]["privacy"]["epsilon"] < 8
    with pytest.raises(H2TuneError, match=r"privacy\.multiplier"):
        h2tune.run(file, out=tmp_path / "run", resume=True, overrides=["privacy.multiplier=1.0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server": {"weighting": "examples"}}, "weight would raise what one client can change"),
        ({"server": {"strategy": "fedit"}}, "noise is built for h2tune"),
        ({"experimental": {"mask": "entry"}}, "sent without protection"),
        ({"noise": "member", "experimental": {"privacy_structure": "public"}}, "sent without protection"),
        ({"noise": "none", "target_epsilon": 1.0}, "without noise there is no ε"),
        ({"delta": 1.0}, "privacy.delta"),
    ],
)
def test_what_the_mechanism_does_not_cover_is_refused(tmp_path, changes, message):
    with pytest.raises(H2TuneError, match=message):
        load(federations.write(tmp_path, content(tmp_path, **changes)))


def test_learned_masks_are_sent_if_that_is_asked_for(tmp_path):
    file = content(tmp_path, experimental={"privacy_structure": "public"}, server={"rounds": 1})
    h2tune.run(federations.write(tmp_path, file), out=tmp_path / "run", strict=True)
    assert aggregated(tmp_path / "run")[0]["privacy"]["epsilon"] > 0


def test_more_shares_than_a_round_is_sure_to_have_are_refused(tmp_path):
    with pytest.raises(H2TuneError, match="3 noise shares need 4 clients"):
        check_privacy(
            load(federations.write(tmp_path, content(tmp_path, "member", experimental={"noise_shares": 3})))
        )


def test_across_machines_a_client_adds_the_share_that_the_coordinator_expects(tmp_path):
    federation = load(
        federations.write(
            tmp_path, content(tmp_path, "member", {"shared_rank": 4, "slots": 2, "min_clients": 3})
        )
    )
    kept = {key: getattr(federation, key) for key in Settings.model_fields}
    settings = Settings.model_validate_json(Settings(**kept).model_dump_json())
    file = MemberFile(federation="tiny", folder=str(tmp_path), client=federation.client[0])
    assert file.joined(settings, tmp_path).experimental.noise_shares == 2


def test_private_metrics_leave_nothing_but_what_was_sent():
    trained = {
        "event": "client_trained", "client": "one", "round": 0, "stage": "trained", "steps": 3, "losses": [1.0],
        "moved": {"delta": 1.0}, "relation": [[1.0]], "seconds": {}, "bytes_up": 4, "sent": [],
    }  # fmt: skip
    (left,) = without_metrics([trained, {"event": "evaluated", "accuracy": 1.0}, {"event": "warning"}])
    assert left.keys() == {"event", "client", "round", "stage", "steps", "bytes_up", "sent"}
    assert json.dumps(left)
