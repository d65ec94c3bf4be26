"""Nothing is printed to standard error that h2tune did not mean to print, by any command that succeeds."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import pytest
import typer.testing
from helpers import federations

from h2tune import config
from h2tune.cli import main
from h2tune.flower.deploy import kit

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

COMMANDS = {
    "run": "federation.toml --out again",
    "inspect": "federation.toml",
    "compare": "federation.toml --methods local,h2tune --seeds 2 --out compared",
    "report": "run",
    "evaluate": "run",
    "predict": "run rows.csv --client one",
    "export": "run exported --client two",
    "merge": "run merged --client one",
    "assets list": "",
    "deploy init": "federation.toml written --host 127.0.0.1",
    "deploy add-member": "three.toml parties three",
    "deploy renew": "parties/coordinator/coordinator.toml",
    "deploy settings": "parties/coordinator/coordinator.toml",
    "deploy peers": "parties/coordinator/coordinator.toml",
    "deploy take-back": "parties/coordinator/coordinator.toml --from-round 1",
    "deploy verify": "parties/coordinator/run",
}
"""Command → its arguments. Those that follow need more than a line, and have tests of their own."""
BEFORE = {"deploy peers": "deploy add-member", "deploy verify": "deploy take-back"}
"""Command → the one that must run before it: three members for secure aggregation, an audit log."""
OTHERS = {"assets fetch", "deploy check", "deploy start", "deploy worker"}

IMPORTS = """
import h2tune.cli.main, h2tune.cli.display, h2tune.compare, h2tune.report.page, h2tune.runs.run, h2tune.runs.results
import h2tune.flower.coordinator.app, h2tune.flower.member.app, h2tune.flower.member.handlers
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a finished run, and the parties of a federation across machines."""
    folder = tmp_path_factory.mktemp("stderr")
    clients = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 4))
    three = federations.federation(folder, clients, train={"local_steps": 1}, data={"train": 8, "test": 4})
    federations.write(folder, three).rename(folder / "three.toml")
    file = federations.write(folder, three | {"client": three["client"][:2]})
    (folder / "rows.csv").write_text("words\ngood film\nbad film\n")
    federations.h2tune("run", str(file), "--out", str(folder / "run"))
    kit.init(config.load(file), folder / "parties", host="127.0.0.1")
    shutil.copytree(folder / "run", folder / "parties" / "coordinator" / "run")
    (folder / "parties" / "coordinator" / "run" / "audit.jsonl").touch()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_succeeds_prints_nothing_to_standard_error(folder, tmp_path, monkeypatch, command):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)  # some commands change it
    monkeypatch.chdir(tmp_path)
    for name in [BEFORE[command], command] if command in BEFORE else [command]:
        done = federations.h2tune(*name.split(), *COMMANDS[name].split())
        assert done.stderr == ""
        assert "Warning" not in done.stdout and "INFO" not in done.stdout


def test_an_asset_that_is_there_is_fetched_without_a_word(tmp_path, monkeypatch):
    from h2tune.assets import fetch  # noqa: F401 - the module is imported before it is replaced

    monkeypatch.setattr("h2tune.assets.fetch", lambda name: tmp_path / name)
    found = typer.testing.CliRunner().invoke(main.app, ["assets", "fetch", "tweets"])
    assert (found.exit_code, found.stderr, found.stdout.strip()) == (0, "", f"tweets: {tmp_path / 'tweets'}")


def test_a_check_that_fails_says_so_in_one_line(folder):
    found = federations.h2tune(
        "deploy", "check", str(folder / "parties/members/one/member.toml"), check=False
    )
    assert found.returncode == 2 and found.stdout.count("\n") == 7
    assert found.stderr.startswith("h2tune: ") and found.stderr.endswith("not ready: connection\n")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(("command", "last"), [("worker", "ready: "), ("start", "connecting to ")])
def test_a_service_prints_nothing_to_standard_error(folder, tmp_path, command, last):
    home = folder / "parties" / "members" / "two"
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        child = subprocess.Popen(
            federations.command("deploy", command, "member.toml"),
            env={**federations.environment(), "PYTHONUNBUFFERED": "1"},
            cwd=home,
            stdout=stdout,
            stderr=stderr,
        )
        end = time.monotonic() + 200
        while last not in out.read_text() and child.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        child.wait(60)
    assert out.read_text().splitlines()[-1].startswith(last)
    assert err.read_text() == ""


def test_every_command_is_in_the_table():
    def names(group, before=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from names(command, (*before, name))
            else:
                yield " ".join((*before, name))

    assert set(names(typer.main.get_command(main.app))) == COMMANDS.keys() | OTHERS


def test_importing_everything_prints_nothing():
    """In a process of its own: those of the other tests are forks of one that has imported it already."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=federations.environment(), capture_output=True, text=True, check=True
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


def test_a_warning_of_a_kernel_that_nothing_uses_is_left_out_and_no_other():
    code = """
import logging, h2tune
logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no module")
logger.warning("another")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=federations.environment(), capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stderr == "another\n"
