"""The contents of the parties' files, from a federation file: coordinator.toml, member.toml and Flower's app."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from h2tune._version import __version__
from h2tune.config import ClientConfig, FederationConfig
from h2tune.errors import H2TuneError
from h2tune.flower.files import CoordinatorFile, MemberFile
from h2tune.flower.load import validated
from h2tune.functional.roles import ROLES

SHARED = ("adapter", "basis", "train", "data", "privacy", "experimental")
"""Sections of a federation file that all parties share, besides `server`."""


def app_content() -> dict[str, Any]:
    """Return the description of the Flower app; its code is that of the installed h2tune."""
    return {
        "project": {
            "name": "h2tune-federation",
            "version": __version__,
            "description": "h2tune",
            "license": "Apache-2.0",
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "h2tune",
                    "components": {
                        "serverapp": "h2tune.flower.coordinator.app:app",
                        "clientapp": "h2tune.flower.member.app:app",
                    },
                    "config": {"coordinator": ""},
                }
            }
        },
    }


def coordinator_content(
    federation: FederationConfig, keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the coordinator's file of a federation; no path, model or task of a member is in it.

    Args:
        federation: A federation file; its clients become members.
        keys: Member → public key.

    Raises:
        H2TuneError: A model cannot be read here and R and D are not set, or a setting is for one machine only.
    """
    if federation.experimental.alone:
        raise H2TuneError(
            "training every client alone as well is for one machine: a member takes part in one run",
            where="experimental.alone",
            remedy="Leave it out here, and compare with h2tune run on one machine",
        )
    server, stated, roles = _from_models(federation)
    sections = {key: getattr(federation, key).model_dump(mode="json", exclude_none=True) for key in SHARED}
    del sections["train"]["arguments"], sections["experimental"]["parts"]  # in each member's file
    del sections["experimental"]["alone"]  # for one machine
    content = {
        "name": federation.name,
        "seed": federation.seed,
        "folder": "run",
        "roles": list(roles),
        "server": server,
        **sections,
        "member": [
            _admitted(client, federation, keys or {}, stated.get(client.name, {}))
            for client in federation.sorted_clients()
        ],
    }
    validated(CoordinatorFile, content, "federation file")
    return content


def admitted_content(
    federation: FederationConfig, client: ClientConfig, key: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the table of a member that is added, and the roles of its model; all roles if it cannot be read here.

    Args:
        federation: A federation whose R and D are numbers.
        client: The member's client.
        key: Its public key.

    Raises:
        H2TuneError: How many examples it may weigh is not known.
    """
    server = federation.server.of_one()
    _, stated, roles = _from_models(federation.model_copy(update={"client": (client,), "server": server}))
    return _admitted(client, federation, {client.name: key}, stated.get(client.name, {})), roles


def _from_models(
    federation: FederationConfig,
) -> tuple[dict[str, Any], dict[str, dict[str, int]], tuple[str, ...]]:
    """Return the server's section with R and D, rank and depth by client, and the shared roles.

    Where models are on the members' machines only, R and D must be set, and all roles are shared.
    """
    from h2tune.runs.enrol import enrol_all

    server = federation.server.model_dump(mode="json", exclude_none=True)
    try:
        _, enrolments, server["shared_rank"], server["slots"] = enrol_all(federation)
    except H2TuneError:
        if not isinstance(server["shared_rank"], int) or not isinstance(server["slots"], int):
            raise
        return server, {}, ROLES
    stated = {e.name: {"rank": e.rank, "depth": e.depth} for e in enrolments}
    return server, stated, tuple(role for role in ROLES if any(role in e.roles for e in enrolments))


def _admitted(
    client: ClientConfig, federation: FederationConfig, keys: Mapping[str, str], stated: Mapping[str, int]
) -> dict[str, Any]:
    """Return a member's table in the coordinator's file."""
    table: dict[str, Any] = {"name": client.name}
    if keys:
        table["key"] = keys[client.name]
    table |= stated
    if not federation.server.secure_aggregation and (examples := _most_examples(client, federation)):
        table["examples"] = examples
    return table


def _most_examples(client: ClientConfig, federation: FederationConfig) -> int | None:
    """Return the most examples that a member may claim; None where its file is elsewhere and they weigh nothing.

    Raises:
        H2TuneError: They are its weight, and not known here.
    """
    examples = client.examples(federation.data)
    if examples is not None:
        return examples
    from h2tune.runs.enrol import load_data

    try:
        _, splits = load_data(
            client, federation.data, federation.seed, federation.experimental.part_of(client.name)
        )
        return len(splits.train)
    except H2TuneError as error:
        if federation.server.weighting != "examples":
            return None
        raise H2TuneError(
            f"how many examples it may weigh is not known here ({error.message})",
            where=f"client '{client.name}'",
            remedy='Set its train to a number, or server.weighting = "uniform"',
        ) from None


def member_content(federation: FederationConfig, client: ClientConfig, **connection: str) -> dict[str, Any]:
    """Return a member's file.

    Args:
        federation: A federation file.
        client: The member's client in it.
        connection: `key`, `superlink` and `root_certificates` of the member's file.

    Raises:
        H2TuneError: The client's settings are invalid.
    """
    table = json.loads(client.model_dump_json(exclude_none=True, exclude_defaults=True))
    table.setdefault("rank", client.rank)  # the default as well, as the coordinator's file states it
    for split in ("train", "validation", "test"):
        table.setdefault(split, getattr(federation.data, split))
    content = {
        "federation": federation.name,
        "folder": "private",
        **connection,
        "arguments": dict(federation.train.arguments),
        "client": table,
    }
    if client.name in federation.experimental.parts:
        content["part"] = list(federation.experimental.part_of(client.name))
    if federation.server.secure_aggregation:
        content["secure_aggregation"] = True
    validated(MemberFile, content, f"client '{client.name}'")
    return content
