"""Ports of this machine: whether one is free, whether something listens there."""

from __future__ import annotations

import contextlib
import errno
import socket

from h2tune.errors import H2TuneError


def check_free(port: int, purpose: str, host: str = "127.0.0.1") -> None:
    """Refuse a port that cannot be opened.

    Args:
        port: The port.
        purpose: What it is for.
        host: The address of this machine; empty for all of IPv4.

    Raises:
        H2TuneError: Another program listens there, or it needs root.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise H2TuneError(*_reason(error, port), where=purpose, remedy=_remedy(error, port)) from None


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Return whether something listens at a port of the loopback interface."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _reason(error: OSError, port: int) -> tuple[str]:
    if error.errno == errno.EADDRINUSE:
        return (f"port {port} is taken",)
    return (f"port {port} cannot be opened ({error.strerror})",)


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EACCES:
        return "Ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; choose a larger one"
    return f"Stop the program that has it (ss -ltnp 'sport = :{port}' names it), or choose another port"
