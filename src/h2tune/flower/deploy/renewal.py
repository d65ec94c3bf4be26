"""A new certificate of the server, and a new CA where the old one ends too soon. Imports nothing heavy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from h2tune import files
from h2tune.config import read_toml
from h2tune.errors import H2TuneError
from h2tune.flower.address import address_of
from h2tune.flower.deploy.credentials import (
    AUTHORITY,
    SERVER,
    SERVER_DAYS,
    certificate_authority,
    server_certificate,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def renew(file: Path, now: datetime | None = None) -> Iterator[str]:
    """Replace the server's certificate; its CA stays unless it ends before the new certificate would.

    A new CA is written before the old one into `tls/ca.crt`, so that a member that has this file trusts both
    certificates, and members can replace theirs one after the other.

    Args:
        file: The coordinator's file.
        now: The time.

    Yields:
        A line for each file, and what is to be done.

    Raises:
        H2TuneError: A file is missing, or openssl fails.
    """
    content = read_toml(file, "Name the coordinator.toml that h2tune deploy init wrote")
    address, tls = address_of(content, file), file.resolve().parent / "tls"
    now = now or datetime.now(UTC)
    with tempfile.TemporaryDirectory(dir=tls.parent) as name:
        new = Path(name)
        changed = _authority(tls, new, now)
        server_certificate(new, address.host)
        if changed:
            _replace(tls, new, AUTHORITY)
        _replace(tls, new, SERVER)
    end = ends(tls / "server.crt")
    yield f"{tls / 'server.crt'}: for {address.host}, until {end:%Y-%m-%d}"
    if not changed:
        yield f"Members need nothing: the CA is the same, until {ends(tls / 'ca.crt'):%Y-%m-%d}."
        yield "Start the coordinator's processes again."
        return
    yield f"{tls / 'ca.crt'}: a new CA, until {ends(tls / 'ca.crt'):%Y-%m-%d}"
    yield "Send this file to every member, over a channel that you trust; it replaces their tls/ca.crt."
    yield "It has the old CA, too: start the coordinator's processes again when all members have it."


def ends(certificate: Path) -> datetime:
    """Return when a certificate ends; of several in a file, the first.

    Raises:
        H2TuneError: The file is missing or has none.
    """
    return _certificate(certificate).not_valid_after_utc


def _certificate(path: Path) -> Certificate:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"is no certificate that can be read ({error})", where=str(path), remedy="Restore it from a copy"
        ) from None


def _authority(tls: Path, new: Path, now: datetime) -> bool:
    """Put the CA into a new folder; return whether it is a new one."""
    old, text = _certificate(tls / "ca.crt"), (tls / "ca.crt").read_text()
    if old.not_valid_after_utc >= now + timedelta(days=SERVER_DAYS):
        for name in AUTHORITY:
            if not (tls / name).is_file():
                raise H2TuneError(
                    "is missing, and the certificate is signed with it",
                    where=str(tls / name),
                    remedy="Put it there from where you keep it",
                )
            shutil.copy(tls / name, new / name)
        return False
    certificate_authority(new)
    if old.not_valid_after_utc > now:
        first = text.partition("-----END CERTIFICATE-----")
        with (new / "ca.crt").open("a") as stream:
            stream.write(first[0] + first[1] + "\n")
    return True


def _replace(tls: Path, new: Path, names: tuple[str, ...]) -> None:
    for name in names:
        mode = 0o600 if name.endswith(".key") else 0o644
        files.write_text(tls / name, (new / name).read_text(), mode=mode)
