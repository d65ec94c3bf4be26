"""Writes a folder for each party of a federation across machines: files, certificates, keys, and a README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

from h2tune import files
from h2tune.config import FederationConfig
from h2tune.errors import H2TuneError
from h2tune.flower.address import HOST_RULE, PORT_RULE, Address, host_problem, port_problem
from h2tune.flower.deploy import pages
from h2tune.flower.deploy.contents import app_content, coordinator_content
from h2tune.flower.deploy.credentials import certificates, node_key
from h2tune.flower.deploy.flwr_commands import write_connection
from h2tune.flower.deploy.members import write_member, write_peers
from h2tune.flower.deploy.services import write_services
from h2tune.flower.load import load_coordinator


def init(
    federation: FederationConfig, out: Path, *, host: str, port: int = 9443, control_port: int = 9091
) -> list[Path]:
    """Write a folder for each party.

    Args:
        federation: Its clients become members.
        out: Folder to write; must not exist.
        host: Name or address at which members reach the coordinator.
        port: Port that is open to members.
        control_port: Port of the SuperLink on the coordinator's loopback interface.

    Returns:
        The parties' folders, the coordinator's first.

    Raises:
        H2TuneError: The folder exists, a tool is missing, or the federation cannot run across machines.
    """
    address = checked_address(host, port, control_port)
    if out.exists():
        raise H2TuneError("exists already", where=str(out), remedy="Name another folder")
    coordinator_content(federation)  # validates before anything is written
    clients = federation.sorted_clients()
    with files.new_folder(out) as temporary:
        home = temporary / "coordinator"
        certificates(home / "tls", host)
        node_key(home / "audit", "coordinator")
        keys = {}
        for client in clients:
            folder = temporary / "members" / client.name
            authority = home / "tls" / "ca.crt"
            keys[client.name] = write_member(folder, federation, client, address.superlink, authority)
        _write_coordinator(home, federation, keys, address)
        write_connection(home, address, out.resolve() / "coordinator")
        if federation.server.secure_aggregation:
            write_peers(temporary)
        (home / "nginx.conf").write_text(pages.nginx(port, control_port, six=":" in host))
        write_services(home, federation.name, port=port)
        (home / "README.md").write_text(pages.coordinator(federation.name, host, port, control_port))
    return [out / "coordinator", *(out / "members" / client.name for client in clients)]


def checked_address(host: str, port: int, control_port: int) -> Address:
    """Return an address; refuse what no certificate or server can be made for.

    Raises:
        H2TuneError: Says the rule.
    """
    if problem := host_problem(host):
        raise H2TuneError(problem, where="--host", remedy=HOST_RULE)
    for name, value in (("--port", port), ("--control-port", control_port)):
        if problem := port_problem(value):
            raise H2TuneError(problem, where=name, remedy=PORT_RULE)
    if port == control_port:
        raise H2TuneError(
            f"both ports are {port}",
            where="--control-port",
            remedy="Members and the control API need a port each",
        )
    return Address(host=host, port=port, control_port=control_port)


def _write_coordinator(
    home: Path, federation: FederationConfig, keys: Mapping[str, str], address: Address
) -> None:
    """Write the coordinator's file, Flower's app and the members' public keys."""
    (home / "app").mkdir()
    (home / "keys").mkdir()
    for name, key in keys.items():
        (home / "keys" / f"{name}.pub").write_text(key + "\n")
    content = {"key": "audit", "address": address.model_dump()} | coordinator_content(federation, keys)
    (home / "coordinator.toml").write_text(tomli_w.dumps(content))
    (home / "app" / "pyproject.toml").write_text(tomli_w.dumps(app_content()))
    load_coordinator(home / "coordinator.toml")
