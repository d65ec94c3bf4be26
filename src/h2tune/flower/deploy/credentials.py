"""Certificates and keys of a federation across machines, made with openssl and ssh-keygen."""

from __future__ import annotations

import ipaddress
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from h2tune.errors import H2TuneError

SERVER_DAYS = 825
"""Days for which a server's certificate is valid."""
AUTHORITY_DAYS = 3650
"""Days for which a CA is valid."""
AUTHORITY, SERVER = ("ca.key", "ca.crt"), ("server.key", "server.crt")
NEW = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-sha384")


def certificates(folder: Path, host: str) -> None:
    """Create a CA, and the server's certificate for `host` and the loopback address.

    Args:
        folder: Folder of `ca.key`, `ca.crt`, `server.key` and `server.crt`; created.
        host: Name or address at which members reach the coordinator.

    Raises:
        H2TuneError: openssl is missing or fails.
    """
    folder.mkdir(parents=True)
    certificate_authority(folder)
    server_certificate(folder, host)


def certificate_authority(folder: Path) -> None:
    """Create `ca.key` and `ca.crt` in a folder.

    Raises:
        H2TuneError: openssl is missing or fails.
    """
    name = f"/CN=h2tune federation CA {secrets.token_hex(4)}"  # two CAs may be in one file
    ca = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", name, "-days", str(AUTHORITY_DAYS)]
    ca += ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _run([*NEW, *ca], folder)
    (folder / "ca.key").chmod(0o600)


def server_certificate(folder: Path, host: str) -> None:
    """Create `server.key` and `server.crt` in a folder, signed by its first CA.

    Args:
        folder: Has `ca.key` and `ca.crt`.
        host: Name or address at which members reach the coordinator.

    Raises:
        H2TuneError: openssl is missing or fails.
    """
    try:
        name = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        name = f"DNS:{host}"
    server = ["-keyout", "server.key", "-out", "server.crt", "-subj", f"/CN={host[:64]}"]
    server += ["-days", str(SERVER_DAYS), "-CA", "ca.crt", "-CAkey", "ca.key"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE"]
    names = f"subjectAltName={name},IP:127.0.0.1,DNS:localhost"
    server += ["-addext", names, "-addext", "extendedKeyUsage=serverAuth"]
    _run([*NEW, *server], folder)
    (folder / "server.key").chmod(0o600)


def node_key(file: Path, name: str) -> str:
    """Create a node's key and return its public half.

    Args:
        file: File of the private key; the public one is beside it, with the ending `.pub`.
        name: Comment of the key.

    Raises:
        H2TuneError: ssh-keygen is missing or fails.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", name, "-f", file.name]
    _run(command, file.parent)
    file.chmod(0o600)
    return file.with_name(f"{file.name}.pub").read_text().strip()


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise H2TuneError(f"{command[0]} is not installed", remedy="apt install openssl openssh-client")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise H2TuneError(f"{command[0]} failed: {result.stderr.strip()[-300:]}")
