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
from h2tune.federation.secagg.protocol import round_of
from h2tune.flower.files import MemberFile, Settings
from h2tune.flower.load import load_member_file
from h2tune.flower.member import ledger, sums
from h2tune.flower.peers import signer_of
from h2tune.functional.quorum import SECURE_CLIENTS
from h2tune.runs.build import check_secure

if TYPE_CHECKING:
    from h2tune.federation.secagg.client import SecAggClient
    from h2tune.federation.secagg.signed import Signer

FILE = "secure/half.json"
BEGUN = "secure/sessions"
"""The sessions that began, one a line."""
KINDS = ("keys", "shares", "agree", "reveal")
"""Kinds of messages of the protocol besides training: AdvertiseKeys, ShareKeys, ConsistencyCheck, Unmasking."""


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
        roles = encoding.names_from_json(head.get("roles"))
        boxes = encoding.boxes_from_json(head.get("boxes"))
        return cls(_session(head), _client_count(head.get("members")), roles, boxes)


def handle(
    kind: str, path: Path, settings: Settings, experiment: str, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a member's answer to a message of the protocol.

    Raises:
        H2TuneError: The message is malformed, not for this member, or not expected now. It names no place, so that
            the coordinator receives it: it says of which member what did not fit.
    """
    name, file = str(head.get("client")), load_member_file(path)
    with _opened_folder(file, settings, experiment, name) as folder, _sayable():
        signer = signer_of(file)
        if kind == "keys":
            return advertise(folder, settings, experiment, signer, {**head, "client": name})
        session = _session(head)
        client = _load(folder, session, signer)
        if kind == "shares":
            boxes = client.share(encoding.roster_from_json(head.get("roster")))
            answer: dict[str, Any] = {"boxes": encoding.bytes_to_json(boxes)}
        elif kind == "agree":
            answer = {"signature": client.agree(encoding.names_from_json(head.get("survivors")))}
        else:
            shares = client.reveal(encoding.signatures_from_json(head.get("signatures")))
            number = round_of(session, settings.name, experiment)
            sums.note(Path(file.folder), number, client.values, client.survivors)
            answer = {"shares": encoding.shares_to_json(shares)}
        _save(folder, client)
        return answer


def advertise(
    folder: Path, settings: Settings, experiment: str, signer: Signer, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the public keys of a session; new keys replace those of older sessions.

    A repeated message, sent after a lost or slow one, gets the same keys. A session that another one followed does not
    begin again.

    Raises:
        H2TuneError: The session is not of this federation and run or was replaced, or the number of clients is not
            that of the member's file of keys.
    """
    from h2tune.federation.secagg.client import SecAggClient

    name, session, clients = str(head["client"]), _session(head), _client_count(head.get("members"))
    if not round_of(session, settings.name, experiment) < settings.server.rounds:
        raise H2TuneError("the session's round is beyond the last")
    if clients != len(signer.names):
        raise H2TuneError(
            f"the coordinator says {clients} members, the member's file of keys has {len(signer.names)}"
        )
    threshold = settings.server.min_clients
    client = SecAggClient(name, session.encode(), threshold=threshold, clients=clients, signer=signer)
    begun = folder / BEGUN
    known = begun.read_text().split() if begun.exists() else []
    if session in known:
        client = _load(folder, session, signer)
        if (client.name, client.threshold) != (name, threshold):
            raise H2TuneError("the session began with another threshold")
    sent = client.advertise()
    _save(folder, client)
    if session not in known:
        files.write_text(begun, "".join(f"{one}\n" for one in (*known, session)))
    return {"keys": encoding.keys_to_json(sent)}


def masked_reply(file: MemberFile, folder: Path, reply: Reply, masks: Masks) -> Reply:
    """Return a reply with its values under the session's masks, the same ones if it is requested again.

    Args:
        file: The member's file.
        folder: The member's folder of the run.
        reply: The reply of its round.
        masks: The session and the boxes.

    Raises:
        H2TuneError: As `SecAggClient.mask`, or the member has no keys of this session.
    """
    from h2tune.federation.secagg.local import mask_reply

    with _sayable():
        client = _load(folder, masks.session, signer_of(file))
        if masks.clients != client.clients:
            raise H2TuneError("the number of members is not that of the session")
        masked = mask_reply(reply, client, masks.boxes)
        _save(folder, client)
        return masked


def masked_strategy(
    strategy: H2Tune, settings: Settings, experiment: str, round_number: int, masks: Masks | None
) -> H2Tune:
    """Return a member's strategy for a round: with masks it quantises, over the roles of the whole federation.

    Raises:
        H2TuneError: The settings have secure aggregation and the message no boxes, or the other way round; the masks
            are of another round; or the roles lack one of this member's.
    """
    if settings.server.secure_aggregation != (masks is not None):
        raise H2TuneError("with secure aggregation, and only with it, a round's message has boxes of shares")
    if masks is None:
        return strategy
    with _sayable():
        if round_of(masks.session, settings.name, experiment) != round_number:
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


def _session(head: Mapping[str, Any]) -> str:
    session = head.get("session")
    if not isinstance(session, str) or len(session) > 256:
        raise H2TuneError("the message names no session of secure aggregation")
    return session


@contextlib.contextmanager
def _sayable() -> Iterator[None]:
    """Let errors of the block name no place: the protocol's reasons have names of members and numbers alone.

    Raises:
        H2TuneError: The same, without its place.
    """
    try:
        yield
    except H2TuneError as error:
        raise H2TuneError(error.message, remedy=error.remedy) from error


def _save(folder: Path, client: SecAggClient) -> None:
    files.write_json(folder / FILE, client.state())  # `files` makes it readable by this user alone


def _load(folder: Path, session: str, signer: Signer) -> SecAggClient:
    from h2tune.federation.secagg.client import SecAggClient

    try:
        client = SecAggClient.from_state(json.loads((folder / FILE).read_text()), signer)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise H2TuneError("this member has no keys for secure aggregation") from None
    if client.session != session.encode():
        raise H2TuneError("this member's keys are of another session")
    return client
