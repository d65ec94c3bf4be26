"""Runs all processes of a party under one command, until the run ends or a process does. Imports nothing heavy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

from h2tune import files
from h2tune.config import read_toml
from h2tune.errors import H2TuneError
from h2tune.flower.address import address_of
from h2tune.flower.deploy import flwr_commands
from h2tune.flower.deploy.flwr_commands import CONNECTION, flwr, h2tune, program
from h2tune.flower.deploy.ports import check_free, free_port, listening
from h2tune.flower.deploy.registration import register
from h2tune.flower.deploy.renewal import ends
from h2tune.flower.deploy.supervisor import Child, Group

READY = 300.0
"""Seconds that a process may take to start."""
ANSWER = 120.0
"""Seconds that one of Flower's commands may take."""
PAUSE = 10.0
"""Seconds before a worker that ended is started again."""
SOON = timedelta(days=30)
"""How long before its end a certificate is worth a line."""
REFUSED = 60.0
"""Seconds before a SuperNode that was refused is started again; its key is unknown, or its last node is listed."""
LOOK = 0.5
"""Seconds between looks at the processes."""
OURS = re.compile(r"(?:INFO\s*:\s+h2tune: |(?:WARNING|ERROR)\s*:\s+(?:h2tune: )?)(.*)")
"""A line of a log that is for the terminal, too."""
Notify = Callable[[str], None]


def start(file: Path, notify: Notify) -> None:
    """Run a party's processes; those of the coordinator until the run is finished, a member's until it is stopped.

    Args:
        file: A coordinator's or a member's file.
        notify: Called with each line for the terminal.

    Raises:
        H2TuneError: The file is neither, something is missing, a port is taken, or a process or the run failed.
    """
    file = file.resolve()
    content = read_toml(file, "Make one with h2tune deploy init")
    if isinstance(content.get("member"), list):
        _coordinator(file, content, notify)
    elif isinstance(content.get("client"), dict):
        _member(file, content, notify)
    else:
        raise H2TuneError(
            "neither a coordinator's file nor a member's",
            where=str(file),
            remedy="Make them from a federation file with h2tune deploy init",
        )


def _coordinator(file: Path, content: Mapping[str, Any], notify: Notify) -> None:
    """Run nginx, the SuperLink and the run."""
    home, address = file.parent, address_of(content, file)
    proxy, link = flwr_commands.nginx(home), flwr_commands.superlink(address)
    _check_certificate(home / "tls" / "server.crt", notify)
    check_free(address.port, "address.port, for members", "")
    check_free(address.control_port, "address.control_port, for the SuperLink")
    flwr_commands.write_connection(home, address)
    with Group(home, flwr_commands.environment(home)) as group:
        group.output(h2tune("deploy", "settings", str(file)), READY)  # validates the file
        superlink = group.start("superlink", link)
        group.until(lambda: listening(address.control_port), superlink, READY)
        for line in register(home, content["member"], lambda *words: _ask(group, *words)):
            notify(line)
        nginx = group.start("nginx", proxy)  # a SuperNode that comes before its key is registered would end
        group.until(lambda: listening(address.port), nginx, READY)
        notify(f"listening for members at {address.superlink}; logs are in {home / 'logs'}")
        run = _run(group, file)
        notify(f"run {run} started: waiting for members")
        _follow(group, run, _heard(notify))
    notify(f"finished: {home / str(content.get('folder'))}")


def _check_certificate(certificate: Path, notify: Notify) -> None:
    """Refuse an expired certificate, and say in time that it ends.

    Raises:
        H2TuneError: It has expired, or cannot be read.
    """
    end, now, renewal = ends(certificate), datetime.now(UTC), "h2tune deploy renew coordinator.toml"
    if end < now:
        raise H2TuneError(f"has expired on {end:%Y-%m-%d}", where=str(certificate), remedy=f"Run {renewal}")
    if end < now + SOON:
        notify(f"the server's certificate ends on {end:%Y-%m-%d}: run {renewal} before")


def _ask(group: Group, *words: str) -> dict[str, Any]:
    """Return the answer of one of Flower's commands."""
    return flwr_commands.answer(group.output(flwr(*words), ANSWER))


def _run(group: Group, file: Path) -> str:
    """Start a run and return its number."""
    settings = file.parent / "flwr" / "run.toml"
    files.write_text(settings, tomli_w.dumps({"coordinator": str(file)}))
    return str(_ask(group, "run", "app", CONNECTION, "--run-config", str(settings))["run-id"])


def _follow(group: Group, run: str, heard: Notify) -> None:
    """Wait until a run is finished; its output goes to `run.log`.

    Raises:
        H2TuneError: It failed, or a process ended.
    """
    services = list(group.children)
    status = "running"
    while not status.startswith("finished"):
        stream = group.start("run", [program("flwr"), "log", run, CONNECTION, "--stream"], heard)
        while not stream.ended:
            for child in services:
                if child.ended:
                    raise child.failure()
            time.sleep(LOOK)
        status = str(_ask(group, "list", CONNECTION, "--run-id", run)["runs"][0]["status"])
    if status != "finished:completed":
        raise H2TuneError(
            f"run {run} ended: {status.partition(':')[2]}",
            where=str(group.folder / "logs" / "run.log"),
            remedy="The log has the reason; the same command continues the run",
        )


def _member(file: Path, content: Mapping[str, Any], notify: Notify) -> None:
    """Run the worker and the SuperNode."""
    home = file.parent
    member = {key: _text(content, key, file) for key in ("superlink", "root_certificates", "key")}
    for key in ("root_certificates", "key"):
        if not (home / Path(member[key]).expanduser()).is_file():
            raise H2TuneError(f"there is no {member[key]}", where=f"{file}: {key}", remedy="See README.md")
    node = flwr_commands.supernode(member, file, free_port())
    with Group(home, flwr_commands.environment(home)) as group:
        worker = _worker(group, file, notify)
        refused: list[str] = []
        heard = _heard(notify, member["superlink"], refused)
        supernode = group.start("supernode", node, heard)
        notify(f"connecting to {member['superlink']}; logs are in {home / 'logs'}. Stop with Ctrl-C")
        while True:
            if worker.ended:
                notify(f"{worker.failure()}. It is started again")
                time.sleep(PAUSE)
                worker = _worker(group, file, notify)
            if supernode.ended and not refused:
                raise supernode.failure()
            if supernode.ended:
                notify(
                    f"the coordinator does not accept this node's key yet; asking again in {REFUSED:.0f} s"
                )
                refused.clear()
                time.sleep(REFUSED)
                supernode = group.start("supernode", node, heard)
            time.sleep(LOOK)


def _worker(group: Group, file: Path, notify: Notify) -> Child:
    """Start a worker and wait until it is ready."""
    ready: list[str] = []

    def heard(line: str) -> None:
        if line.startswith("ready:"):
            ready.append(line)
        elif re.fullmatch(r"\w+: [\d.]+ s", line):
            notify(f"answered {line}")

    worker = group.start("worker", h2tune("deploy", "worker", str(file)), heard)
    group.until(lambda: bool(ready), worker, READY)
    return worker


def _heard(notify: Notify, superlink: str = "", refused: list[str] | None = None) -> Notify:
    """Return what passes lines of a log to the terminal.

    Args:
        notify: Shows a line.
        superlink: Where a SuperNode connects.
        refused: Is appended to where the SuperLink refuses a SuperNode.
    """

    def heard(line: str) -> None:
        if refused is not None and "Failed to activate" in line:
            refused.append(line)
        if superlink and "SuperNode ID:" in line:
            notify(f"connected to {superlink}")
        elif found := OURS.match(line):
            notify(found[1])

    return heard


def _text(content: Mapping[str, Any], key: str, file: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise H2TuneError(f"'{key}' is missing", where=str(file), remedy="h2tune deploy init writes it")
    return value
