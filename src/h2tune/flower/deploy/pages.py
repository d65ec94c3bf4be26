"""The text files of a party's folder, from `templates/`: README.md with its commands, and nginx.conf."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def member(federation: str, name: str, superlink: str, *, secure: bool = False) -> str:
    """Return a member's README.

    Args:
        federation: Name of the federation.
        name: The member.
        superlink: HOST:PORT at which members reach the coordinator.
        secure: Whether the federation has secure aggregation.
    """
    return render("member.md.j2", federation=federation, name=name, superlink=superlink, secure=secure)


def coordinator(federation: str, host: str, port: int, control_port: int) -> str:
    """Return the coordinator's README.

    Args:
        federation: Name of the federation.
        host: Name or address at which members reach the coordinator.
        port: Port that is open to members.
        control_port: Port of the SuperLink on the loopback interface.
    """
    return render(
        "coordinator.md.j2",
        federation=federation,
        host=host,
        port=port,
        control_port=control_port,
    )


def nginx(port: int, control_port: int, *, six: bool = False) -> str:
    """Return the configuration of a reverse proxy that forwards only the paths of members' nodes.

    Args:
        port: Port that is open to members.
        control_port: Port of the SuperLink on the loopback interface.
        six: Whether it listens on IPv6 addresses, too.
    """
    return render("nginx.conf.j2", port=port, control_port=control_port, six=six)


def render(template: str, **values: object) -> str:
    """Return a template with its values filled in."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("h2tune.flower.deploy"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - plain text and Markdown; names are checked by `Name`
        keep_trailing_newline=True,
        trim_blocks=True,
    )
