"""`h2tune deploy start` for each party: nginx, SuperLink, SuperNodes and workers under one command, tiny models."""

from __future__ import annotations

import shutil
import signal

import pytest
from helpers import deployment, federations

from h2tune.events import read_events
from h2tune.flower.deploy import flwr_commands

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CLIENTS = (("alpha", "llama", 4), ("beta", "bert", 8))


def test_one_command_for_each_party_runs_a_federation_and_leaves_no_process(tmp_path):
    if shutil.which("nginx", path=flwr_commands.environment(tmp_path)["PATH"] + ":/usr/sbin") is None:
        pytest.skip("nginx is not installed")
    content = federations.federation(
        tmp_path,
        CLIENTS,
        server={"rounds": 2, "min_clients": 2},
        train={"local_steps": 1},
        data={"train": 8, "test": 4},
    )
    port, public = deployment.free_port(), deployment.free_port()
    folder = deployment.lay_out(tmp_path, content, port, secure=True, public=public)
    with deployment.deployment(folder, port, secure=True, public=public) as parties:
        coordinator = parties.start("start", ["h2tune", "deploy", "start", "coordinator.toml"], parties.home)
        members = {
            name: parties.start(
                f"start-{name}", ["h2tune", "deploy", "start", "member.toml"], folder / "members" / name
            )
            for name, *_ in CLIENTS
        }
        parties.until(lambda: coordinator.poll() is not None, 1500)
        assert coordinator.returncode == 0, parties.tails()
        events = read_events(parties.home / "run" / "events.jsonl")
        assert [e["clients"] for e in events if e["event"] == "aggregated"] == [["alpha", "beta"]] * 2
        said = parties.log("start")
        assert "round 2: alpha, beta" in said and "Traceback" not in said
        assert not deployment.listening(port) and not deployment.listening(public)
        assert "answered train" in parties.log("start-alpha")

        below = {name: deployment.descendants(process.pid) for name, process in members.items()}
        assert all(len(pids) >= 2 for pids in below.values())
        members["alpha"].kill()  # as the kernel does where memory is short
        members["beta"].send_signal(signal.SIGINT)  # Ctrl-C
        parties.until(
            lambda: not any(deployment.arguments_of(pid) for pids in below.values() for pid in pids), 120
        )
        assert members["beta"].wait(60) == 130
        assert "stopped; the same command continues" in parties.log("start-beta")
