"""Pre-flight checks for a member's machine: file, folder, model, data, memory and connection. Knows no flwr.

What a file names is looked at before torch is imported.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from h2tune.config import ClientConfig, DataConfig
from h2tune.config.inputs import check_model, check_task
from h2tune.errors import H2TuneError
from h2tune.flower.files import MemberFile
from h2tune.flower.load import load_member_file, member_client
from h2tune.flower.peers import checksum, load_peers, signer_of

TIMEOUT = 10.0
"""Seconds for the connection to the coordinator's machine."""
EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Args:
        subject: What was checked.
        passed: Whether it can be used.
        detail: What it is, or what is wrong and how to fix it.
    """

    subject: str
    passed: bool
    detail: str


def check(path: Path) -> Iterator[CheckResult]:
    """Run the checks for a member's file one after the other, and yield each result.

    Where the model or the data are not there, neither is loaded.

    Raises:
        H2TuneError: The file is invalid.
    """
    file = load_member_file(path)
    client = member_client(file, path)
    yield CheckResult("file", True, f"'{client.name}' in '{file.federation}'")
    if file.peers is not None:
        yield _result("members' keys", lambda: _peers(file))
    yield _result("folder", lambda: _folder(Path(file.folder)))
    missing = list(_missing(client))
    yield from missing
    if not missing:
        yield _result("model", lambda: _model(client))
        yield _result("data", lambda: _data(client, file.part or (0, 1)))
        yield _result("memory", lambda: _memory(client))
    yield _result("connection", lambda: _connection(file))


def _missing(client: ClientConfig) -> Iterator[CheckResult]:
    """Yield a failure for a model or data that are not there."""
    for subject, look in (
        ("model", lambda: check_model(client.model)),
        ("data", lambda: check_task(client.task)),
    ):
        try:
            look()
        except H2TuneError as error:
            yield CheckResult(subject, False, str(error))


def _result(subject: str, describe: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(subject, True, describe())
    except (H2TuneError, OSError) as error:
        return CheckResult(subject, False, str(error))


def _peers(file: MemberFile) -> str:
    signer_of(file)
    peers, keys = load_peers(Path(str(file.peers)))
    return f"{len(keys)}, its own among them; compare the checksum with the other members: {checksum(peers)}"


def _folder(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.write_bytes(b"")
    probe.unlink()
    return f"{folder} is writable"


def _model(client: ClientConfig) -> str:
    from h2tune.models import load_model, load_tokenizer
    from h2tune.runs.model_info import client_info

    info = client_info(client)
    model = load_model(client.model, info.kind, client.dtype, 0, code=client.trust_remote_code)
    load_tokenizer(client.model, code=client.trust_remote_code)
    roles = sorted({placement.role for placement in info.placements})
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return f"{info.family}, {millions:,.1f} M parameters, roles {', '.join(roles)}"


def _data(client: ClientConfig, part: tuple[int, int]) -> str:
    from h2tune.runs.enrol import load_data

    task, splits = load_data(client, DataConfig(), 0, part)
    return f"{task.name}: {len(splits.train)} training examples, {len(splits.test)} test examples"


def _memory(client: ClientConfig) -> str:
    """Compare weights, gradients and Adam's moments with the free memory; activations need more."""
    from h2tune.runs.inspect import base_bytes
    from h2tune.runs.model_info import client_info
    from h2tune.runs.ranks import ADAM_BYTES, trainable

    info = client_info(client)
    rank = client.rank if isinstance(client.rank, int) else 1
    needed = base_bytes(info) + trainable(info, rank, rank) * ADAM_BYTES
    free, where = _free_bytes()
    detail = f"{needed / 1e9:.1f} GB for weights, gradients and Adam, plus activations"
    detail += f"; {free / 1e9:.1f} GB free {where}"
    if needed > free:
        raise H2TuneError(detail, remedy="Lower client.rank, set client.dtype, or free memory")
    return detail


def _free_bytes() -> tuple[int, str]:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0], "on the GPU"
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "in main memory"


def _connection(file: MemberFile) -> str:
    """Connect to the coordinator's machine over TLS, verify its certificate, and check that a SuperLink answers.

    Whether the node's key is registered shows when its SuperNode starts.
    """
    host, port, ca = _address(file)
    context = ssl.create_default_context(cafile=ca)
    try:
        answer, version = _fleet_answer(host, port, context)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == EXPIRED:
            raise H2TuneError(
                "its certificate has expired, or this machine's clock is wrong",
                remedy="Ask the coordinator to run h2tune deploy renew",
            ) from None
        remedy = "Ask the coordinator for tls/ca.crt of this federation"
        raise H2TuneError(
            f"its certificate is not signed by the federation's CA ({error.verify_message})", remedy=remedy
        ) from None
    except OSError as error:
        remedy = "Check that nginx and the SuperLink are running and that no firewall is in between"
        raise H2TuneError(f"{file.superlink} cannot be reached ({error})", remedy=remedy) from None
    if not answer.startswith("HTTP/1."):
        raise H2TuneError(f"{file.superlink} does not speak HTTP")
    status = answer.partition(" ")[2][:3]
    if status.startswith("5"):
        raise H2TuneError(
            f"{file.superlink} answers with status {status}: no SuperLink is running there or behind its proxy",
            remedy="Ask the coordinator to check that the SuperLink is running",
        )
    return f"{file.superlink} answers over {version} with a certificate of the federation's CA"


def _address(file: MemberFile) -> tuple[str, int, str]:
    """Return host and port of the SuperLink, and the file of the CA certificate."""
    if file.superlink is None:
        raise H2TuneError("superlink is missing", remedy='Set superlink = "HOST:PORT" in the member\'s file')
    host, _, port = file.superlink.rpartition(":")
    if not port.isdecimal():
        raise H2TuneError(f"'{file.superlink}' is not HOST:PORT", where="superlink")
    if file.root_certificates is None:
        remedy = 'Set root_certificates = "tls/ca.crt" in the member\'s file'
        raise H2TuneError("root_certificates is missing", remedy=remedy)
    return host.strip("[]"), int(port), file.root_certificates


def _fleet_answer(host: str, port: int, context: ssl.SSLContext) -> tuple[str, str | None]:
    """Return the start of the answer to a request of a SuperNode's path, and the version of TLS."""
    name = host.strip("[]")
    with (
        socket.create_connection((name, port), timeout=TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.sendall(f"GET /v1/fleet/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return secure.recv(64).decode("latin-1"), secure.version()
