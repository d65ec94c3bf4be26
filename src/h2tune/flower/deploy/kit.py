"""What each party of a federation across machines gets: files, certificates, keys, and the commands to type."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from h2tune import files
from h2tune._version import __version__
from h2tune.adapter.roles import ROLES
from h2tune.config import ClientConfig, FederationConfig
from h2tune.errors import H2TuneError
from h2tune.flower.deploy import pages
from h2tune.flower.files import Coordinator, MemberFile, load_coordinator, load_member_file, validated
from h2tune.runs.enrol import enrol_all

DAYS = "825"


def app_content() -> dict[str, Any]:
    """Return what Flower wants to know of the app; its code is the installed h2tune."""
    module = "h2tune.flower"
    return {
        "project": {
            "name": "h2tune-federation",
            "version": __version__,
            "description": "h2tune",
            "license": "Apache-2.0",
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "h2tune",
                    "components": {
                        "serverapp": f"{module}.server_app:app",
                        "clientapp": f"{module}.client_app:app",
                    },
                    "config": {"coordinator": ""},
                }
            }
        },
    }


def coordinator_content(federation: FederationConfig, keys: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the coordinator's file for a federation: what the members' tables come to, and nothing else of them.

    Args:
        federation: A federation file; its clients become members.
        keys: Member → public key.

    Raises:
        H2TuneError: A model cannot be seen from here and R and D are not stated, or a setting is for one machine only.
    """
    if federation.experimental.alone:
        raise H2TuneError(
            "training every client alone as well is for one machine: a member takes part in one run",
            where="experimental.alone",
            remedy="Leave it out here, and compare with h2tune run on one machine",
        )
    server = federation.server.model_dump(mode="json", exclude_none=True)
    stated = isinstance(server["shared_rank"], int) and isinstance(server["slots"], int)
    ranks: dict[str, dict[str, int]] = {}
    roles: tuple[str, ...] = ROLES
    try:
        _, enrolments, server["shared_rank"], server["slots"] = enrol_all(federation)
        ranks = {e.name: {"rank": e.rank, "depth": e.depth} for e in enrolments}
        roles = tuple(role for role in ROLES if any(role in e.roles for e in enrolments))
    except H2TuneError:
        if not stated:  # the models may be on the members' machines alone
            raise
    content = {
        "name": federation.name,
        "seed": federation.seed,
        "folder": "run",
        "roles": list(roles),
        "server": server,
        **{
            key: getattr(federation, key).model_dump(mode="json", exclude_none=True)
            for key in ("adapter", "basis", "train", "data", "privacy", "experimental")
        },
        "member": [
            {
                "name": client.name,
                **({"key": keys[client.name]} if keys else {}),
                **ranks.get(client.name, {}),
                **(
                    {}
                    if federation.server.secure_aggregation
                    else {"examples": client.train or federation.data.train}
                ),
            }
            for client in federation.sorted_clients()
        ],
    }
    content["train"].pop("arguments")
    del (
        content["experimental"]["parts"],
        content["experimental"]["alone"],
    )  # each member's own; for one machine
    validated(Coordinator, content, "federation file")
    return content


def member_content(federation: FederationConfig, client: ClientConfig, **connection: str) -> dict[str, Any]:
    """Return a member's file."""
    table = json.loads(client.model_dump_json(exclude_none=True, exclude_defaults=True))
    table.setdefault(
        "rank", client.rank
    )  # said, even if it is the default: it is what the coordinator's file says
    for split in ("train", "validation", "test"):
        table.setdefault(split, getattr(federation.data, split))
    content = {
        "federation": federation.name,
        "folder": "private",
        **connection,
        "arguments": dict(federation.train.arguments),
        "client": table,
    }
    if client.name in federation.experimental.parts:
        content["part"] = list(federation.experimental.part_of(client.name))
    if federation.server.secure_aggregation:
        content["secure_aggregation"] = True
    validated(MemberFile, content, f"client '{client.name}'")
    return content


def init(
    federation: FederationConfig, out: Path, *, host: str, port: int = 9443, control_port: int = 9091
) -> list[Path]:
    """Write a folder for each party.

    Args:
        federation: Its clients become members.
        out: Folder to write; must not be there.
        host: Name or address at which members reach the coordinator.
        port: Port that is open to members.
        control_port: Port on the coordinator's loopback interface, open to nobody else.

    Returns:
        The parties' folders, the coordinator's first.

    Raises:
        H2TuneError: The folder is there, a tool is missing, or the federation cannot run across machines.
    """
    if out.exists():
        raise H2TuneError("is there already", where=str(out), remedy="Name another folder")
    coordinator_content(federation)  # says what is wrong before anything is written
    with files.new_folder(out) as temporary:
        home, authority = temporary / "coordinator", str(out.resolve() / "coordinator" / "tls" / "ca.crt")
        certificates(home / "tls", host)
        keys = {}
        names = [client.name for client in federation.sorted_clients()]
        for client in federation.sorted_clients():
            folder = temporary / "members" / client.name
            keys[client.name] = node_key(folder / "node", client.name)
            (folder / "tls").mkdir()
            shutil.copy(home / "tls" / "ca.crt", folder / "tls" / "ca.crt")
            content = member_content(
                federation, client, superlink=f"{host}:{port}", root_certificates="tls/ca.crt"
            )
            (folder / "member.toml").write_text(tomli_w.dumps(content))
            (folder / "README.md").write_text(pages.member(federation.name, client.name, f"{host}:{port}"))
            load_member_file(folder / "member.toml")
        _coordinator(
            home, federation, keys, {"address": f"127.0.0.1:{control_port}", "root-certificates": authority}
        )
        (home / "nginx.conf").write_text(pages.nginx(port, control_port))
        (home / "README.md").write_text(pages.coordinator(federation.name, names, host, port, control_port))
    return [out / "coordinator", *(out / "members" / name for name in names)]


def _coordinator(
    home: Path, federation: FederationConfig, keys: dict[str, str], link: dict[str, str]
) -> None:
    """Write the coordinator's file, Flower's app, and Flower's connection to the control interface."""
    (home / "app").mkdir()
    (home / "keys").mkdir()
    for name, key in keys.items():
        (home / "keys" / f"{name}.pub").write_text(key + "\n")
    (home / "coordinator.toml").write_text(tomli_w.dumps(coordinator_content(federation, keys)))
    (home / "app" / "pyproject.toml").write_text(tomli_w.dumps(app_content()))
    connections = {"superlink": {"default": "h2tune", "h2tune": link}}
    files.write_text(home / "flwr" / "config.toml", tomli_w.dumps(connections))
    load_coordinator(home / "coordinator.toml")


def certificates(folder: Path, host: str) -> None:
    """Make a CA, and the server's certificate for `host` and the loopback address, with openssl."""
    folder.mkdir(parents=True)
    try:
        name = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        name = f"DNS:{host}"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-sha384", "-days", DAYS]
    ca = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=h2tune federation CA"]
    ca += ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _tool(["openssl", "req", "-x509", *curve, *ca], folder)
    server = ["-keyout", "server.key", "-out", "server.crt", "-subj", f"/CN={host[:64]}"]
    server += ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    server += [
        "-addext",
        f"subjectAltName={name},IP:127.0.0.1,DNS:localhost",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ]
    _tool(["openssl", "req", "-x509", *curve, *server], folder)
    for key in ("ca.key", "server.key"):
        (folder / key).chmod(0o600)


def node_key(file: Path, name: str) -> str:
    """Make a node's key with ssh-keygen, and return its public half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _tool(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", name, "-f", file.name], file.parent
    )
    file.chmod(0o600)
    return file.with_name(f"{file.name}.pub").read_text().strip()


def _tool(arguments: Sequence[str], folder: Path) -> None:
    if shutil.which(arguments[0]) is None:
        raise H2TuneError(f"{arguments[0]} is not installed", remedy="apt install openssl openssh-client")
    result = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise H2TuneError(f"{arguments[0]} failed: {result.stderr.strip()[-300:]}")
