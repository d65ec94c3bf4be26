"""The compose files and systemd units of the kit: valid, with the command of the party, and with few rights."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers import federations

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from h2tune.config import load
from h2tune.flower.deploy import kit, services

PARTIES = [("coordinator", "coordinator", "coordinator.toml"), ("members/one", "one", "member.toml")]


def unit_of(folder, service: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string((folder / f"h2tune-{service}.service").read_text())
    return unit


@pytest.mark.parametrize(("place", "service", "file"), PARTIES)
def test_a_compose_file_runs_the_party_s_command_without_rights_that_it_does_not_need(
    parties, place, service, file
):
    content = yaml.safe_load((parties / place / "compose.yaml").read_text())
    assert list(content["services"]) == [service]
    made = content["services"][service]
    assert made["command"] == ["h2tune", "deploy", "start", file]
    assert (parties / place / file).is_file() and made["volumes"] == [".:/federation"]
    assert made["restart"] == "on-failure" and made["read_only"] and made["cap_drop"] == ["ALL"]
    assert made["user"].startswith("${H2TUNE_USER:?") and "privileged" not in made
    assert made.get("ports") == (["9443:9443"] if service == "coordinator" else None)
    # what is sent to the builder has no key in it
    assert [path.name for path in (parties / place / made["build"]).iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize(("place", "service", "file"), PARTIES)
def test_a_unit_runs_the_party_s_command_as_its_own_user_and_starts_it_again(parties, place, service, file):
    made = unit_of(parties / place, service)["Service"]
    assert made["ExecStart"].endswith(f"bin/h2tune deploy start {file}")
    assert made["User"] == "h2tune" and made["Restart"] == "on-failure"
    assert made["WorkingDirectory"] == made["ReadWritePaths"] == f"/srv/h2tune/{service}"
    assert made["ProtectSystem"] == "strict" and made["NoNewPrivileges"] == "yes"
    assert ("PrivateDevices" in made) == (service == "coordinator")  # a member may need its GPU


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("port", [0, 443, 9443])
def test_systemd_accepts_a_unit(tmp_path, port):
    services.write_services(tmp_path, "tiny", member="" if port else "one", port=port)
    (unit,) = tmp_path.glob("*.service")
    text = unit.read_text().replace("/opt/h2tune/bin/h2tune", sys.executable)  # it must be there
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert done.returncode == 0 and not said, done.stderr


def test_a_port_below_1024_needs_one_capability(tmp_path):
    content = load(federations.write(tmp_path, federations.federation(tmp_path)))
    kit.init(content, tmp_path / "kit", host="localhost", port=443)
    home = tmp_path / "kit" / "coordinator"
    made = yaml.safe_load((home / "compose.yaml").read_text())["services"]["coordinator"]
    assert made["cap_add"] == ["NET_BIND_SERVICE"] and made["ports"] == ["443:443"]
    assert unit_of(home, "coordinator")["Service"]["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
