"""Questions to members: each is asked once it is connected, and again if it is silent for long."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from flwr.app import Message

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Tensors, Update
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.pending import PendingRequest
from h2tune.flower.messages import pack

log = logging.getLogger("flwr.h2tune")
Answered = TypeVar("Answered")
Read = Callable[[str, Mapping[str, Any], Update | None], Answered]
"""Takes member, head and update of an answer; may raise `H2TuneError`."""


def ask(
    messenger: Messenger,
    kind: str,
    heads: Mapping[str, Mapping[str, Any]],
    read: Read[Answered],
    *,
    seconds: float,
    tensors: Tensors | None = None,
    most: Callable[[str], int] = lambda _: 0,
) -> dict[str, Answered]:
    """Send members a query and return the answers that can be read.

    Args:
        messenger: Reaches the members.
        kind: Of the query.
        heads: By member, what is said.
        read: Reads an answer.
        seconds: How long to wait; who has not answered by then has no answer.
        tensors: What goes with it.
        most: Returns the most bytes of tensors that a member's answer may hold.
    """
    asked = {
        member: PendingRequest(partial(_query, messenger, kind, member, heads[member], tensors))
        for member in heads
    }
    answers: dict[str, Answered] = {}

    def tell(member: str, reason: str) -> None:
        log.warning("%s: '%s': %s; it was asked again", kind, member, reason)

    for member, identifier, answer in messenger.answers(asked, seconds, tell):
        if answer is None:
            log.warning("%s: '%s': %s", kind, member, asked.pop(member).reason)
        elif answer.lost:
            asked[member].was_lost(identifier, answer.reason)
        else:
            try:
                answers[member] = read(member, *answer.read(most(member)))
                del asked[member]
            except H2TuneError as error:
                log.warning("%s: '%s': %s", kind, member, error)
                if not asked[member].was_refused(identifier, str(error)):
                    del asked[member]
    return answers


def _query(
    messenger: Messenger,
    kind: str,
    member: str,
    head: Mapping[str, Any],
    tensors: Tensors | None,
    node: int,
) -> Message:
    head = {**messenger.common_head, "client": member, **head}
    content = pack(head, None if tensors is None else Update(member, 0, 0, tensors))
    return Message(
        content, dst_node_id=node, message_type=f"query.{kind}", ttl=messenger.coordinator.deadline
    )
