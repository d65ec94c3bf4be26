"""Where a federation's coordinator is reached: the rules for names, addresses and ports. Imports nothing heavy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from h2tune.config import problem
from h2tune.config.types import ConfigSection
from h2tune.errors import H2TuneError

LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(rf"{LABEL}(\.{LABEL})*")
NUMBERS = re.compile(r"[0-9.]+")
LONGEST_HOST = 253
HOST_RULE = (
    "Use a name of letters a to z, digits, '-' and '.', as in fed.example.org, with at most 63 characters between two "
    "dots, or an IP address; no https:// and no port"
)
PORT_RULE = "Use a number from 1 to 65535"
LARGEST_PORT = 65_535
PRIVILEGED = 1024
"""Ports below this need root, or the capability CAP_NET_BIND_SERVICE."""


def host_problem(host: str) -> str:
    """Return why members cannot connect to a host of this name or address, or an empty string."""
    address = _address(host)
    if address is not None:
        return f"'{host}' means every address of a machine, and no one of them" if _is_any(address) else ""
    if NUMBERS.fullmatch(host) or not HOST.fullmatch(host) or len(host) > LONGEST_HOST:
        return f"'{host}' is not a name or an address"
    return ""


def port_problem(port: int) -> str:
    """Return why a number is no port, or an empty string."""
    return "" if 1 <= port <= LARGEST_PORT else f"{port} is not a port"


def in_url(host: str) -> str:
    """Return a host as it stands before a port: an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host else host


def _host(value: str) -> str:
    if problem := host_problem(value):
        raise ValueError(f"{problem}. {HOST_RULE}")
    return value


Port = Annotated[int, Field(ge=1, le=LARGEST_PORT)]


class Address(ConfigSection):
    """Where the coordinator is reached."""

    host: Annotated[str, AfterValidator(_host)]
    """Name or address at which members reach it; the server's certificate is for it."""
    port: Port
    """Port that is open to members; nginx listens there."""
    control_port: Port
    """Port of the SuperLink on the loopback interface."""

    @model_validator(mode="after")
    def _two_ports(self) -> Address:
        if self.port == self.control_port:
            raise ValueError(f"both ports are {self.port}: members and the control API need a port each")
        return self

    @property
    def superlink(self) -> str:
        """HOST:PORT at which members connect."""
        return f"{in_url(self.host)}:{self.port}"


def address_of(content: Mapping[str, Any], file: Path) -> Address:
    """Return where the coordinator is reached.

    Raises:
        H2TuneError: Its file does not say it, or not validly.
    """
    if "address" not in content:
        raise H2TuneError(
            "'address' is missing",
            where=str(file),
            remedy='Add a table [address] with host = "…", port = 9443 and control_port = 9091',
        )
    try:
        return Address.model_validate(content["address"])
    except ValidationError as error:
        raise problem(error, Address, content["address"], f"{file}: address") from None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_any(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_unspecified or address.is_multicast
