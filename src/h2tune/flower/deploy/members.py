"""A member's folder, made with all the others or added later."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w

from h2tune import files
from h2tune.config import ClientConfig, FederationConfig
from h2tune.errors import H2TuneError, nearest
from h2tune.flower.address import address_of
from h2tune.flower.deploy import pages
from h2tune.flower.deploy.contents import admitted_content, member_content
from h2tune.flower.deploy.credentials import node_key
from h2tune.flower.deploy.services import write_services
from h2tune.flower.files import CoordinatorFile
from h2tune.flower.load import load_coordinator, load_member_file, validated
from h2tune.flower.peers import FILE, peers_content


def write_member(
    folder: Path, federation: FederationConfig, client: ClientConfig, superlink: str, authority: Path
) -> str:
    """Write a member's folder and return its public key.

    Args:
        folder: Where.
        federation: The federation file.
        client: The member's client in it.
        superlink: HOST:PORT at which members reach the coordinator.
        authority: The CA's certificate.

    Raises:
        H2TuneError: The client's settings are invalid, or ssh-keygen is missing.
    """
    key = node_key(folder / "node", client.name)
    (folder / "tls").mkdir()
    shutil.copy(authority, folder / "tls" / "ca.crt")
    secure = federation.server.secure_aggregation
    peers = {"peers": FILE} if secure else {}
    content = member_content(
        federation, client, key="node", **peers, superlink=superlink, root_certificates="tls/ca.crt"
    )
    (folder / "member.toml").write_text(tomli_w.dumps(content))
    (folder / "README.md").write_text(pages.member(federation.name, client.name, superlink, secure=secure))
    write_services(folder, federation.name, member=client.name)
    load_member_file(folder / "member.toml")
    return key


def add_member(federation: FederationConfig, parties: Path, name: str) -> Path:
    """Write the folder of a new member, and admit it in the coordinator's file; the others' folders stay as they are.

    With secure aggregation every member's folder gets the new file of members' keys, which the others need as well.

    Args:
        federation: The federation file, with the new member's client.
        parties: The folder of all parties.
        name: The new member.

    Returns:
        Its folder.

    Raises:
        H2TuneError: It is no client of the file, or a member already, or does not fit the coordinator's file.
    """
    home, folder = parties / "coordinator", parties / "members" / name
    file = home / "coordinator.toml"
    coordinator = load_coordinator(file)
    client = _new_client(federation, coordinator, name)
    if folder.exists():
        raise H2TuneError("exists already", where=str(folder), remedy="Move it away")
    address = address_of(tomllib.loads(file.read_text(encoding="utf-8")), file)
    federation = _fixed(federation, coordinator)
    with files.new_folder(folder) as temporary:
        key = write_member(temporary, federation, client, address.superlink, home / "tls" / "ca.crt")
        table, roles = admitted_content(federation, client, key)
        _check_roles(roles, table, coordinator, name)
        # appended, so that comments in the file stay
        text = file.read_text(encoding="utf-8").rstrip("\n") + "\n\n[[member]]\n"
        text += tomli_w.dumps(table)
        _check_text(text, file)
    (home / "keys" / f"{name}.pub").write_text(key + "\n")
    files.write_text(file, text, mode=file.stat().st_mode & 0o777)
    if coordinator.server.secure_aggregation:
        write_peers(parties)
    return folder


def write_peers(parties: Path) -> None:
    """Write all members' public keys into each member's folder that is here.

    Args:
        parties: The folder of all parties.

    Raises:
        H2TuneError: A member has no key in the coordinator's file, or they are not valid.
    """
    text = tomli_w.dumps(peers_content(load_coordinator(parties / "coordinator" / "coordinator.toml")))
    for folder in (parties / "members").iterdir():
        if (folder / "member.toml").exists():
            files.write_text(folder / FILE, text, mode=0o644)


def _new_client(federation: FederationConfig, coordinator: CoordinatorFile, name: str) -> ClientConfig:
    """Return the client that becomes a member.

    Raises:
        H2TuneError: It cannot.
    """
    clients = {client.name: client for client in federation.client}
    if federation.name != coordinator.name:
        raise H2TuneError(
            f"the file is of '{federation.name}', the folder of '{coordinator.name}'", where="name"
        )
    if name in coordinator.names:
        raise H2TuneError("is a member already", where=f"'{name}'", remedy="Name another client of the file")
    if name not in clients:
        raise H2TuneError(
            f"the federation file has no client '{name}'{nearest(name, list(clients))}",
            remedy="Add its [[client]] table",
        )
    rank, size = clients[name].rank, int(coordinator.server.shared_rank)
    if isinstance(rank, int) and rank > size:
        raise H2TuneError(
            f"rank {rank} is above R = {size}", where=f"client '{name}'", remedy="Lower it: R cannot change"
        )
    if coordinator.server.secure_aggregation and (Path(coordinator.folder) / "events.jsonl").exists():
        raise H2TuneError(
            "the run has begun, and with secure aggregation its number of members is fixed",
            where=coordinator.folder,
            remedy="Name another folder in coordinator.toml",
        )
    return clients[name]


def _fixed(federation: FederationConfig, coordinator: CoordinatorFile) -> FederationConfig:
    """Return a federation with the server of the coordinator's file, whose R and D are numbers."""
    return federation.model_copy(update={"server": coordinator.server})


def _check_roles(
    roles: Sequence[str], table: Mapping[str, object], coordinator: CoordinatorFile, name: str
) -> None:
    """Check the roles of a model that was read; one that is on its member's machine only is checked when it enrols.

    Raises:
        H2TuneError: It has one that is not shared.
    """
    foreign = [role for role in roles if role not in coordinator.roles]
    if foreign and "depth" in table:
        raise H2TuneError(
            f"role '{foreign[0]}' is not shared in this federation",
            where=f"member '{name}'",
            remedy=f"Choose a model with no roles but {', '.join(coordinator.roles)}",
        )


def _check_text(text: str, file: Path) -> None:
    """Check the coordinator's new file before it replaces the old one.

    Raises:
        H2TuneError: It is not valid.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise H2TuneError(
            "its members are not tables of their own", where=str(file), remedy="Write each as [[member]]"
        ) from None
    validated(CoordinatorFile, content, str(file))
