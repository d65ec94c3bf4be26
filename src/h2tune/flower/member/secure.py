"""A member's half of secure aggregation, kept in its folder from one message to the next. Knows no flwr.

Every message starts a new process, so the half is written down; private keys never leave the member's folder, and are
gone from it once shares were revealed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.adapter.roles import ROLES
from h2tune.errors import H2TuneError
from h2tune.federation.channel import Reply
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.run_store import RunStore
from h2tune.federation.secagg import encoding
from h2tune.flower.files import MemberFile, Settings, load_member_file
from h2tune.functional.quorum import SECURE_CLIENTS
from h2tune.runs.build import check_secure

FILE = "secure/half.json"


@dataclass(frozen=True)
class Masks:
    """What a member is told of the masks of a round; untrusted.

    Args:
        session: Name of the session.
        members: Number of members that may join.
        roles: Roles whose values are summed, in order.
        boxes: Boxes for this member, by sender.
    """

    session: str
    members: int
    roles: tuple[str, ...]
    boxes: Mapping[str, bytes]

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Masks | None:
        """Return what a message's head says; None if it says nothing of masks."""
        if "session" not in head:
            return None
        names, boxes = (
            encoding.names_from_json(head.get("roles")),
            encoding.bytes_from_json(head.get("boxes")),
        )
        return cls(str(head["session"]), _number(head.get("members")), names, boxes)


def advertise(folder: Path, settings: Settings, name: str, head: Mapping[str, Any]) -> dict[str, Any]:
    """Make new keys for a session, which take the place of older ones, and return the public ones.

    Asked again in one session, as where a message was lost or was slow, it has the same keys.
    """
    from h2tune.federation.secagg.client import SecAggClient

    session, members = str(head.get("session")), _number(head.get("members"))
    half = SecAggClient(name, session.encode(), threshold=settings.server.min_clients, most=members)
    with contextlib.suppress(H2TuneError):
        kept = _load(folder, session)
        if (kept.name, kept.threshold, kept.most) == (half.name, half.threshold, half.most):
            half = kept
    sent = half.advertise()
    _keep(folder, half)
    return {"keys": encoding.keys_to_json(sent)}


def share(folder: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return a box of shares for every other member of the roster."""
    half = _load(folder, str(head.get("session")))
    boxes = half.share(encoding.roster_from_json(head.get("roster")))
    _keep(folder, half)
    return {"boxes": encoding.bytes_to_json(boxes)}


def reveal(folder: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """Return shares of survivors' seeds and of the others' keys; then no key is left here."""
    half = _load(folder, str(head.get("session")))
    shares = half.reveal(encoding.names_from_json(head.get("survivors")))
    _keep(folder, half)
    return {"shares": encoding.shares_to_json(shares)}


def masked(folder: Path, reply: Reply, masks: Masks) -> Reply:
    """Return a reply with its values under the masks of the session, the same ones if it is asked for again."""
    from h2tune.federation.secagg.local import under_masks

    half = _load(folder, masks.session)
    hidden = under_masks(reply, half, masks.boxes)
    _keep(folder, half)
    return hidden


def prepare(strategy: H2Tune, settings: Settings, round_number: int, masks: Masks | None) -> H2Tune:
    """Return a member's strategy for a round: with masks it quantises, over the roles of the whole federation.

    Raises:
        H2TuneError: Values are to be masked and the message has no boxes, or has some that are not of this round; or
            the roles lack one of this member's.
    """
    if settings.server.secure_aggregation != (masks is not None):
        raise H2TuneError("with secure aggregation, and only with it, a round's message has boxes of shares")
    if masks is None:
        return strategy
    if not masks.session.startswith(f"{settings.name}|{round_number}|"):
        raise H2TuneError("the masks are of another round")
    if masks.roles != tuple(role for role in ROLES if role in masks.roles) or set(strategy.roles) - set(
        masks.roles
    ):
        raise H2TuneError("the roles that are summed are not in order, or lack one that is shared here")
    changed = replace(strategy.settings, roles=masks.roles, secure_members=masks.members)
    return H2Tune(list(strategy.enrolments.values()), changed)


@contextlib.contextmanager
def folder_of(file: MemberFile, settings: Settings, experiment: str, name: str) -> Iterator[Path]:
    """Yield a member's folder of an experiment, which is its own while the block lasts.

    Raises:
        H2TuneError: The message is not for this member, or there is no secure aggregation.
    """
    if not settings.server.secure_aggregation or (file.federation, file.client.name) != (settings.name, name):
        raise H2TuneError("a message of secure aggregation that is not for this member")
    check_secure(settings.server)
    store = RunStore(Path(file.folder) / experiment, resume=True)
    try:
        yield store.folder
    finally:
        store.close()


def answer(
    kind: str, path: Path, settings: Settings, experiment: str, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a member's answer to a message of the protocol."""
    name = str(head.get("client"))
    with folder_of(load_member_file(path), settings, experiment, name) as folder:
        if kind == "keys":
            return advertise(folder, settings, name, head)
        return share(folder, head) if kind == "shares" else reveal(folder, head)


def _number(value: object) -> int:
    least, most = SECURE_CLIENTS
    if not isinstance(value, int) or not least <= value <= most:
        raise H2TuneError(f"secure aggregation is for {least} to {most} members")
    return value


def _keep(folder: Path, half: Any) -> None:
    files.write_json(folder / FILE, half.state())  # for this user's eyes alone, as all that `files` writes


def _load(folder: Path, session: str) -> Any:
    from h2tune.federation.secagg.client import SecAggClient

    try:
        half = SecAggClient.from_state(json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        raise H2TuneError("this member has no keys for secure aggregation") from None
    if half.session != session.encode():
        raise H2TuneError("this member's keys are of another session")
    return half
