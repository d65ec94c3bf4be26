"""A member's side of secure aggregation, stored in its folder between messages. Knows no flwr.

Every message starts a new process, so the state is written to a file. Private keys never leave the member's folder, and
are deleted once shares were revealed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h2tune import files
from h2tune.adapter.roles import ROLES
from h2tune.errors import H2TuneError
from h2tune.federation.channel import Reply
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.run_store import RunStore
from h2tune.federation.secagg import encoding
from h2tune.flower.files import MemberFile, Settings
from h2tune.flower.load import load_member_file
from h2tune.flower.member import ledger
from h2tune.functional.quorum import SECURE_CLIENTS
from h2tune.runs.build import check_secure

if TYPE_CHECKING:
    from h2tune.federation.secagg.client import SecAggClient

FILE = "secure/half.json"
KINDS = ("keys", "shares", "reveal")
"""Kinds of messages of the protocol besides training: AdvertiseKeys, ShareKeys, Unmasking."""


@dataclass(frozen=True)
class Masks:
    """What a round's message says about masks; untrusted.

    Args:
        session: Name of the session.
        clients: Number of clients in the federation.
        roles: Roles whose values are summed, in order.
        boxes: Boxes for this client, by sender.
    """

    session: str
    clients: int
    roles: tuple[str, ...]
    boxes: Mapping[str, bytes]

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Masks | None:
        """Return the masks of a message's head; None without secure aggregation.

        Raises:
            H2TuneError: They are malformed.
        """
        if "session" not in head:
            return None
        roles, boxes = (
            encoding.names_from_json(head.get("roles")),
            encoding.bytes_from_json(head.get("boxes")),
        )
        return cls(str(head["session"]), _client_count(head.get("members")), roles, boxes)


def handle(
    kind: str, path: Path, settings: Settings, experiment: str, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a member's answer to a message of the protocol.

    Raises:
        H2TuneError: The message is malformed, not for this member, or not expected now.
    """
    name = str(head.get("client"))
    with _opened_folder(load_member_file(path), settings, experiment, name) as folder:
        if kind == "keys":
            return advertise(folder, settings, name, head)
        return share(folder, head) if kind == "shares" else reveal(folder, head)


def advertise(folder: Path, settings: Settings, name: str, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public keys of a session; new keys replace those of older sessions.

    A repeated message, sent after a lost or slow one, gets the same keys.

    Raises:
        H2TuneError: The number of clients is out of range.
    """
    from h2tune.federation.secagg.client import SecAggClient

    session, clients = str(head.get("session")), _client_count(head.get("members"))
    client = SecAggClient(name, session.encode(), threshold=settings.server.min_clients, clients=clients)
    with contextlib.suppress(H2TuneError):
        stored = _load(folder, session)
        if (stored.name, stored.threshold, stored.clients) == (name, client.threshold, clients):
            client = stored
    sent = client.advertise()
    _save(folder, client)
    return {"keys": encoding.keys_to_json(sent)}


def share(folder: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return a box of shares for every other client of the roster.

    Raises:
        H2TuneError: As `SecAggClient.share`, or the member has no keys of this session.
    """
    client = _load(folder, str(head.get("session")))
    boxes = client.share(encoding.roster_from_json(head.get("roster")))
    _save(folder, client)
    return {"boxes": encoding.bytes_to_json(boxes)}


def reveal(folder: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return shares of survivors' seeds and of the others' keys, and delete the member's own keys.

    Raises:
        H2TuneError: As `SecAggClient.reveal`, or the member has no keys of this session.
    """
    client = _load(folder, str(head.get("session")))
    shares = client.reveal(encoding.names_from_json(head.get("survivors")))
    _save(folder, client)
    return {"shares": encoding.shares_to_json(shares)}


def masked_reply(folder: Path, reply: Reply, masks: Masks) -> Reply:
    """Return a reply with its values under the session's masks, the same ones if it is requested again.

    Raises:
        H2TuneError: As `SecAggClient.mask`, or the member has no keys of this session.
    """
    from h2tune.federation.secagg.local import mask_reply

    client = _load(folder, masks.session)
    masked = mask_reply(reply, client, masks.boxes)
    _save(folder, client)
    return masked


def masked_strategy(strategy: H2Tune, settings: Settings, round_number: int, masks: Masks | None) -> H2Tune:
    """Return a member's strategy for a round: with masks it quantises, over the roles of the whole federation.

    Raises:
        H2TuneError: The settings have secure aggregation and the message no boxes, or the other way round; the masks
            are of another round; or the roles lack one of this member's.
    """
    if settings.server.secure_aggregation != (masks is not None):
        raise H2TuneError("with secure aggregation, and only with it, a round's message has boxes of shares")
    if masks is None:
        return strategy
    if not masks.session.startswith(f"{settings.name}|{round_number}|"):
        raise H2TuneError("the masks are of another round")
    in_order = masks.roles == tuple(role for role in ROLES if role in masks.roles)
    if not in_order or set(strategy.roles) - set(masks.roles):
        raise H2TuneError("the roles that are summed are not in order, or lack one that is shared here")
    changed = replace(strategy.settings, roles=masks.roles, secure_clients=masks.clients)
    return H2Tune(list(strategy.enrolments.values()), changed)


@contextlib.contextmanager
def _opened_folder(file: MemberFile, settings: Settings, experiment: str, name: str) -> Iterator[Path]:
    """Yield a member's folder of an experiment, locked inside the block.

    Raises:
        H2TuneError: The message is not for this member, or there is no secure aggregation.
    """
    if not settings.server.secure_aggregation or (file.federation, file.client.name) != (settings.name, name):
        raise H2TuneError("a message of secure aggregation that is not for this member")
    check_secure(settings.server)
    file.policy.check(settings, ledger.spent(Path(file.folder), without=experiment))
    store = RunStore(Path(file.folder) / experiment, resume=True)
    try:
        yield store.folder
    finally:
        store.close()


def _client_count(value: object) -> int:
    least, most = SECURE_CLIENTS
    if not isinstance(value, int) or not least <= value <= most:
        raise H2TuneError(f"secure aggregation is for {least} to {most} members")
    return value


def _save(folder: Path, client: SecAggClient) -> None:
    files.write_json(folder / FILE, client.state())  # `files` makes it readable by this user alone


def _load(folder: Path, session: str) -> SecAggClient:
    from h2tune.federation.secagg.client import SecAggClient

    try:
        client = SecAggClient.from_state(json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        raise H2TuneError("this member has no keys for secure aggregation") from None
    if client.session != session.encode():
        raise H2TuneError("this member's keys are of another session")
    return client
