"""Proves on a member's machine, before the day, that its model, data, memory and connection will do. Knows no flwr."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from h2tune.config import ClientConfig, DataConfig
from h2tune.errors import H2TuneError
from h2tune.flower.files import MemberFile, load_member_file, member_client
from h2tune.models import load_model, load_tokenizer
from h2tune.runs.enrol import load_data
from h2tune.runs.inspect import base_bytes
from h2tune.runs.model_info import client_info
from h2tune.runs.ranks import ADAM_BYTES, trainable


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Args:
        what: What was looked at.
        good: Whether it will do.
        told: What there is, or what is wrong and what to do.
    """

    what: str
    good: bool
    told: str


def check(path: Path) -> Iterator[Finding]:
    """Yield findings on a member's file, one after the other; a broken file ends it.

    Raises:
        H2TuneError: The file cannot be read.
    """
    file = load_member_file(path)
    client = member_client(file, path)
    yield Finding("file", True, f"'{client.name}' in '{file.federation}'")
    for what, look in (
        ("folder", lambda: _folder(Path(file.folder))),
        ("model", lambda: _model(client)),
        ("data", lambda: _data(client, file.part or (0, 1))),
        ("memory", lambda: _memory(client)),
        ("connection", lambda: _connection(file)),
    ):
        yield _finding(what, look)


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except (H2TuneError, OSError) as error:
        return Finding(what, False, str(error))


def _folder(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.write_bytes(b"")
    probe.unlink()
    return f"{folder} can be written"


def _model(client: ClientConfig) -> str:
    seen = client_info(client)
    model = load_model(client.model, seen.kind, client.dtype, 0)
    load_tokenizer(client.model)
    roles = sorted({placement.role for placement in seen.placements})
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return f"{seen.family}, {millions:,.1f} M parameters, roles {', '.join(roles)}"


def _data(client: ClientConfig, part: tuple[int, int]) -> str:
    task, splits = load_data(client, DataConfig(), 0, part)
    return f"{task.name}: {len(splits.train)} examples to train on, {len(splits.test)} to test"


def _memory(client: ClientConfig) -> str:
    """Compare weights, gradients and Adam's moments with what is free; activations come on top."""
    seen = client_info(client)
    rank = client.rank if isinstance(client.rank, int) else 1
    needed = base_bytes(seen) + trainable(seen, rank, rank) * ADAM_BYTES
    free, where = _free_bytes()
    told = f"{needed / 1e9:.1f} GB for weights, gradients and Adam (activations come on top)"
    told += f", {free / 1e9:.1f} GB free {where}"
    if needed > free:
        raise H2TuneError(told, remedy="Lower client.rank, set client.dtype, or free memory")
    return told


def _free_bytes() -> tuple[int, str]:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0], "on the GPU"
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "in main memory"


def _connection(file: MemberFile) -> str:
    """Shake hands with the coordinator's machine under the federation's CA, and see that a SuperLink answers there.

    Whether the node's key is registered shows when its SuperNode starts.
    """
    if file.superlink is None:
        raise H2TuneError("no superlink is named", remedy='Set superlink = "HOST:PORT" in the member\'s file')
    host, _, port = file.superlink.rpartition(":")
    if not port.isdecimal():
        raise H2TuneError(f"'{file.superlink}' is no HOST:PORT", where="superlink")
    if file.root_certificates is None:
        raise H2TuneError("no CA certificate is named", remedy='Set root_certificates = "tls/ca.crt"')
    name = host.strip("[]")
    context = ssl.create_default_context(cafile=file.root_certificates)
    try:
        with (
            socket.create_connection((name, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            secure.sendall(f"GET /v1/fleet/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = secure.recv(64).decode("latin-1")
            version = secure.version()
    except ssl.SSLCertVerificationError as error:
        remedy = "Ask the coordinator for tls/ca.crt of this federation"
        raise H2TuneError(
            f"its certificate is not of our CA ({error.verify_message})", remedy=remedy
        ) from None
    except OSError as error:
        remedy = "See that nginx and the SuperLink are running and that no firewall is in between"
        raise H2TuneError(f"{file.superlink} cannot be reached ({error})", remedy=remedy) from None
    if not answer.startswith("HTTP/1."):
        raise H2TuneError(f"{file.superlink} does not speak HTTP")
    status = answer.partition(" ")[2][:3]
    if status.startswith("5"):
        raise H2TuneError(
            f"{file.superlink} answers {status}: what is there is no SuperLink, or has none behind it",
            remedy="Ask the coordinator to see that the SuperLink is running",
        )
    return f"{file.superlink} answers over {version} with a certificate of our CA"
