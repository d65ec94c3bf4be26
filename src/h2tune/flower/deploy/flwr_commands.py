"""What h2tune says to Flower's command line: environment, connection, commands. Imports nothing heavy, and no flwr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from h2tune import files
from h2tune.errors import H2TuneError
from h2tune.flower.address import Address

CONNECTION = "h2tune"
"""Name of the connection in Flower's configuration."""
INSTALL = {
    "nginx": "Install it: apt install nginx",
    "flwr": "Install it: pip install 'h2tune[flower]'",
}
SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where nginx is; not on the PATH of ordinary users of Debian."""


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a party's processes: no telemetry, no installer, Flower's files in the folder.

    Args:
        home: The party's folder.
    """
    return {
        **os.environ,
        "PATH": _path(),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PYTHONUNBUFFERED": "1",
    }


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        H2TuneError: It is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([_path(), *SYSTEM]))
    if found is None:
        raise H2TuneError(f"{name} is not installed", remedy=INSTALL.get(name, INSTALL["flwr"]))
    return found


def h2tune(*arguments: str) -> list[str]:
    """Return a command of this h2tune."""
    return [sys.executable, "-P", "-m", "h2tune", *arguments]


def write_connection(home: Path, address: Address, place: Path | None = None) -> None:
    """Write how Flower's commands reach the SuperLink.

    Args:
        home: The coordinator's folder.
        address: Where it is reached.
        place: Where that folder will be, by default where it is; Flower takes an absolute path only.
    """
    link = {
        "address": f"127.0.0.1:{address.control_port}",
        "root-certificates": str((place or home.resolve()) / "tls" / "ca.crt"),
    }
    connections = {"superlink": {"default": CONNECTION, CONNECTION: link}}
    files.write_text(home / "flwr" / "config.toml", tomli_w.dumps(connections))


def nginx(home: Path) -> list[str]:
    """Return the command of the reverse proxy, in the foreground."""
    return [program("nginx"), "-p", str(home), "-c", "nginx.conf", "-g", "daemon off;"]


def superlink(address: Address) -> list[str]:
    """Return the command of the SuperLink, in the coordinator's folder."""
    command = [program("flower-superlink"), "--host", "127.0.0.1", "--port", str(address.control_port)]
    command += ["--database", "flwr/state.db", "--enable-supernode-auth", "--ssl-ca-certfile", "tls/ca.crt"]
    return [*command, "--ssl-certfile", "tls/server.crt", "--ssl-keyfile", "tls/server.key"]


def supernode(member: Mapping[str, str], file: Path, port: int) -> list[str]:
    """Return the command of a SuperNode, in the member's folder.

    Args:
        member: `superlink`, `root_certificates` and `key` of the member's file.
        file: The member's file.
        port: A free port for the SuperNode's own use, on the loopback interface.
    """
    command = [program("flower-supernode"), "--superlink", member["superlink"]]
    command += ["--root-certificates", member["root_certificates"]]
    command += ["--auth-supernode-private-key", member["key"], "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--node-config", f'h2tune="{file}"']


def flwr(*arguments: str) -> list[str]:
    """Return a command of Flower's for the SuperLink whose answer is JSON."""
    return [program("flwr"), *arguments, "--format", "json"]


def answer(output: str) -> dict[str, Any]:
    """Return the answer of such a command.

    Raises:
        H2TuneError: There is none, or it says that the command failed.
    """
    try:
        found = json.loads(output[output.index("{") :])
    except ValueError:
        found = {"error-message": output.strip()[-300:] or "no answer"}
    if not isinstance(found, dict) or found.get("success") is not True:
        text = str(found.get("error-message") if isinstance(found, dict) else found)
        raise H2TuneError(text.strip().splitlines()[-1][:300] if text.strip() else "it failed", where="flwr")
    return found


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
