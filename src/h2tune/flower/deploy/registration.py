"""Keeps the SuperLink's list of members' keys equal to the coordinator's file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.errors import H2TuneError
from h2tune.flower.deploy.flwr_commands import CONNECTION

RECORD = "registered.json"
"""Name → key and node, of the members that are registered; beside the SuperLink's database."""
KNOWN = "already in use"
"""In Flower's answer, where a key is registered."""
Ask = Callable[..., dict[str, Any]]
"""Returns the answer of one of Flower's commands, of its words."""


def register(home: Path, members: Iterable[Mapping[str, Any]], ask: Ask) -> Iterator[str]:
    """Register the keys of new members, and unregister the nodes of those that are gone or have another key.

    Args:
        home: The coordinator's folder.
        members: The tables `[[member]]` of its file.
        ask: Asks the SuperLink.

    Yields:
        A line for each change.

    Raises:
        H2TuneError: A member has no key, or the SuperLink refuses it.
    """
    wanted = {str(member.get("name")): _key(member) for member in members}
    record = home / "flwr" / RECORD
    known = _recorded(record) if (home / "flwr" / "state.db").exists() else {}
    for name in [name for name, entry in known.items() if wanted.get(name) != entry["key"]]:
        yield _unregister(name, known.pop(name)["node"], ask)
        files.write_json(record, known)
    for name in [name for name in wanted if name not in known]:
        known[name] = {"key": wanted[name], "node": _register(name, wanted[name], ask)}
        files.write_json(record, known)
        yield f"{name}: its key is registered"


def _key(member: Mapping[str, Any]) -> str:
    if not isinstance(member.get("key"), str):
        raise H2TuneError(
            "'key' is missing",
            where=f"member '{member.get('name')}'",
            remedy="Set it to the line in its node.pub",
        )
    return str(member["key"])


def _register(name: str, key: str, ask: Ask) -> str:
    """Register a key and return the node's number; empty if the key was registered by another command."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.pub"
        file.write_text(key + "\n")
        try:
            return str(ask("supernode", "register", str(file), CONNECTION, "--name", name)["node-id"])
        except H2TuneError as error:
            if KNOWN in error.message:
                return ""
            raise H2TuneError(error.message, where=f"member '{name}'", remedy="Check its key") from None


def _unregister(name: str, node: str, ask: Ask) -> str:
    """Unregister a node; return what to say about it. Without its name in the file it may not join in any case."""
    try:
        if not node:
            raise H2TuneError("another command registered it")
        ask("supernode", "unregister", node, CONNECTION)
    except H2TuneError as error:
        return f"{name}: its node could not be unregistered ({error.message})"
    return f"{name}: its node is unregistered"


def _recorded(record: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(record.read_bytes()))
    except (OSError, ValueError):
        return {}
