"""Files with which a machine keeps a party running: a compose file with its image, and a systemd unit."""

from __future__ import annotations

from pathlib import Path

from h2tune._version import __version__
from h2tune.flower.deploy import pages


def write_services(folder: Path, federation: str, *, member: str = "", port: int = 0) -> None:
    """Write a compose file, the Dockerfile of its image, and a systemd unit into a party's folder.

    Args:
        folder: The party's folder.
        federation: Name of the federation.
        member: The member; empty for the coordinator.
        port: Port that is open to members; 0 at a member.
    """
    service = member or "coordinator"
    values = {
        "title": f"{member or 'The coordinator'} in the federation {federation}",
        "service": service,
        "file": "member.toml" if member else "coordinator.toml",
        "member": bool(member),
        "port": port,
        "version": __version__,
    }
    (folder / "image").mkdir()
    for name, template in (
        ("compose.yaml", "compose.yaml.j2"),
        ("image/Dockerfile", "Dockerfile.j2"),
        (f"h2tune-{service}.service", "service.j2"),
    ):
        (folder / name).write_text(pages.render(template, **values))
