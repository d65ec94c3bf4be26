"""Questions to members: each is asked once it is connected, and again if it is silent for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from flwr.app import Message

from h2tune.errors import H2TuneError
from h2tune.federation.flower.asked import Asked
from h2tune.federation.flower.messages import pack, text, unpack
from h2tune.federation.update import Tensors, Update

if TYPE_CHECKING:
    from h2tune.federation.flower.channel import GridChannel

log = logging.getLogger("flwr.h2tune")
Answer = TypeVar("Answer")
Read = Callable[[str, Mapping[str, Any], Update | None], Answer]
"""Takes member, head and update of an answer; may raise `H2TuneError`."""


def ask(
    channel: GridChannel,
    kind: str,
    heads: Mapping[str, Mapping[str, Any]],
    read: Read[Answer],
    *,
    seconds: float,
    tensors: Tensors | None = None,
    most: Callable[[str], int] = lambda _: 0,
) -> dict[str, Answer]:
    """Send members a query and return the answers that can be read.

    Args:
        channel: Knows where the members are.
        kind: Of the query.
        heads: By member, what is said.
        read: Reads an answer.
        seconds: How long to wait; who has not answered by then has no answer.
        tensors: What goes with it.
        most: Returns the most bytes of tensors that a member's answer may hold.
    """
    patience = channel.coordinator.patience
    asked = {
        member: Asked(partial(_query, channel, kind, member, heads[member], tensors)) for member in heads
    }
    answers: dict[str, Answer] = {}

    def tell(member: str, reason: str) -> None:
        log.warning("%s: '%s': %s; it was asked again", kind, member, reason)

    start, slowest = time.monotonic(), 0.0
    while asked and time.monotonic() - start < seconds:
        channel.attendance.look()
        channel.send(asked, slowest, tell)
        waiting = {identifier: member for member, a in asked.items() for identifier in a.waiting}
        for message in channel.grid.pull_messages(list(waiting)) if waiting else []:
            identifier = message.metadata.reply_to_message_id
            member = waiting[identifier]
            if member not in asked:
                continue  # it answered the same twice
            wanted = asked[member]
            try:
                answers[member] = read(member, *_answer(message, most(member)))
                slowest = max(slowest, asked.pop(member).waited)
            except H2TuneError as error:
                log.warning("%s: '%s': %s", kind, member, error)
                if not wanted.was_refused(identifier, str(error)):
                    del asked[member]
        for member in [m for m, a in asked.items() if a.given_up(patience)]:
            del asked[member]
        if asked:
            time.sleep(channel.poll)
    return answers


def _query(
    channel: GridChannel,
    kind: str,
    member: str,
    head: Mapping[str, Any],
    tensors: Tensors | None,
    node: int,
) -> Message:
    head = {**channel.common_head, "client": member, **head}
    content = pack(head, None if tensors is None else Update(member, 0, 0, tensors))
    return Message(content, dst_node_id=node, message_type=f"query.{kind}", ttl=channel.coordinator.deadline)


def _answer(message: Message, most: int) -> tuple[dict[str, Any], Update | None]:
    if message.has_error():
        raise H2TuneError(f"it was lost (Flower's code {message.error.code})")
    head, update = unpack(message.content, most)
    if "reason" in head:
        raise H2TuneError(text(head, "reason")[:500])
    return head, update
