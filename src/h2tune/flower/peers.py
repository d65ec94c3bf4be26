"""The members' public keys, as each member has them: so the coordinator can neither invent a member nor replace a key.

The file is part of the kit. It is the same at all members, so that they can compare its checksum over another channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from h2tune.config import read_toml
from h2tune.errors import H2TuneError, within
from h2tune.federation.secagg.signed import Keyring, Signer
from h2tune.files import sha256
from h2tune.flower.files import CoordinatorFile, MemberFile, PeersFile
from h2tune.flower.load import validated
from h2tune.flower.signing import is_signed, public_key, sign

FILE = "peers.toml"


class NodeKeys(Keyring):
    """The public keys of the members' nodes.

    Args:
        keys: By member, as ssh-keygen writes them or in PEM.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self.keys = dict(keys)

    @property
    def names(self) -> Collection[str]:
        return self.keys.keys()

    def is_signed(self, name: str, statement: bytes, signature: str) -> bool:
        return is_signed(statement, signature, self.keys[name])


class NodeSigner(NodeKeys, Signer):
    """The private key of a member's node, and the public keys of all.

    Args:
        keys: By member.
        private: File of the private key.
    """

    def __init__(self, keys: Mapping[str, bytes], private: Path) -> None:
        super().__init__(keys)
        self.private = private

    def sign(self, statement: bytes) -> str:
        return sign(statement, self.private)


def peers_content(file: CoordinatorFile) -> dict[str, Any]:
    """Return the content of the members' file of keys.

    Args:
        file: The coordinator's file, which has the keys.

    Raises:
        H2TuneError: A member has no key there, or they are not valid.
    """
    for member in file.member:
        if member.key is None:
            raise H2TuneError(f"'{member.name}' has no key", where="member", remedy="Give it its node.pub")
    # without the comments of the keys, so that all parties get the same bytes
    members = [{"name": m.name, "key": " ".join(str(m.key).split()[:2])} for m in file.member]
    content = {"federation": file.name, "member": sorted(members, key=lambda member: member["name"])}
    _keys_of(validated(PeersFile, content, "the coordinator's file"))
    return content


def load_peers(path: Path) -> tuple[PeersFile, dict[str, bytes]]:
    """Read a file of members' keys; returns it, and the keys by member.

    Raises:
        H2TuneError: The file is invalid, a name or a key occurs twice, or a key is not one of a node.
    """
    content = read_toml(path, "Ask for the file that the other members have")
    file = validated(PeersFile, content, str(path))
    with within(str(path)):
        return file, _keys_of(file)


def checksum(file: PeersFile) -> str:
    """Return a checksum of federation, names and keys, for members to compare."""
    lines = sorted(f"{member.name} {' '.join(member.key.split()[:2])}" for member in file.member)
    return sha256("\n".join([file.federation, *lines]).encode())


def signer_of(file: MemberFile) -> NodeSigner:
    """Return a member's signing key and the public keys of all members.

    Raises:
        H2TuneError: Its file names no keys, or they are of another federation or without its own. Names no path.
    """
    if file.key is None or file.peers is None:
        raise H2TuneError("secure aggregation needs `key` and `peers` in the member's file")
    try:
        peers, keys = load_peers(Path(file.peers))
    except H2TuneError as error:
        raise H2TuneError(f"its file of members' keys cannot be used: {error.message}") from error
    if peers.federation != file.federation:
        raise H2TuneError(f"its file of members' keys is of '{peers.federation}', not of '{file.federation}'")
    name = file.client.name
    if name not in keys:
        raise H2TuneError(f"its file of members' keys has none of '{name}'")
    signer, probe = NodeSigner(keys, Path(file.key)), b"h2tune probe"
    if not signer.is_signed(name, probe, signer.sign(probe)):
        raise H2TuneError(f"its file of members' keys has another key of '{name}' than its node's")
    return signer


def _keys_of(file: PeersFile) -> dict[str, bytes]:
    """Return the keys by member.

    Raises:
        H2TuneError: A name or a key occurs twice, or a key is not one of a node.
    """
    keys: dict[str, bytes] = {}
    seen: dict[bytes, str] = {}
    for member in file.member:
        name, key = member.name, public_key(member.key.encode())
        if key is None:
            raise H2TuneError(f"the key of '{name}' is not one of ssh-keygen -t ecdsa")
        if name in keys or key in seen:
            raise H2TuneError(
                f"'{name}' occurs twice" if name in keys else f"'{name}' and '{seen[key]}' have one key"
            )
        keys[name], seen[key] = key, name
    return keys
