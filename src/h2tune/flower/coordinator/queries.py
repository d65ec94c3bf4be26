"""Queries to clients: each is sent once its client is connected, and retried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from flwr.app import Message

from h2tune.federation.messages import Tensors, Update
from h2tune.flower.coordinator.messenger import Messenger, Result, settle, unanswered
from h2tune.flower.coordinator.pending import PendingRequest
from h2tune.flower.coordinator.tolerant_grid import Answer
from h2tune.flower.messages import pack

log = logging.getLogger("flwr.h2tune")
Value = TypeVar("Value")
Read = Callable[[str, Mapping[str, Any], Update | None], Value]
"""Reads client, head and update of an answer; may raise `H2TuneError`."""


def ask(
    messenger: Messenger,
    kind: str,
    heads: Mapping[str, Mapping[str, Any]],
    read: Read[Value],
    *,
    seconds: float,
    tensors: Tensors | None = None,
    most: Callable[[str], int] = lambda _: 0,
) -> dict[str, Value]:
    """Send a query to clients and return the answers by client; those without a valid answer are left out.

    Args:
        messenger: Carries the messages.
        kind: Kind of the query.
        heads: Client → head of its message, besides what all messages have.
        read: Reads an answer.
        seconds: The time available.
        tensors: Tensors of every message.
        most: Returns the most bytes of tensors that a client's answer may hold.
    """
    pending = {
        client: PendingRequest(partial(_query, messenger, kind, client, heads[client], tensors))
        for client in heads
    }
    values: dict[str, Value] = {}

    def notify(client: str, reason: str) -> None:
        log.warning("%s: '%s': %s; retrying", kind, client, reason)

    def read_answer(client: str, answer: Answer) -> Value:
        return read(client, *answer.read(most(client)))

    def take(result: Result[Value]) -> None:
        if result.value is None:
            log.warning("%s: '%s': %s", kind, result.client, result.reason)
        else:
            values[result.client] = result.value

    for arrival in messenger.arrivals(kind, pending, seconds, notify):
        result = settle(pending, arrival, read_answer)
        if result is not None:
            take(result)
    for result in unanswered(pending, seconds):
        take(result)
    return values


def _query(
    messenger: Messenger,
    kind: str,
    client: str,
    head: Mapping[str, Any],
    tensors: Tensors | None,
    node: int,
) -> Message:
    head = {**messenger.common_head, "client": client, **head}
    content = pack(head, None if tensors is None else Update(client, 0, 0, tensors))
    return Message(
        content, dst_node_id=node, message_type=f"query.{kind}", ttl=messenger.coordinator.deadline
    )
