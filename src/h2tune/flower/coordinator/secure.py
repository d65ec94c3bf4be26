"""Carries the messages of secure aggregation over Flower's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from h2tune.federation.channel import Downloads, Reply
from h2tune.federation.messages import Enrolment
from h2tune.federation.secagg import encoding
from h2tune.federation.secagg.channel import Carrier, Session
from h2tune.federation.secagg.protocol import Keys, Shares
from h2tune.flower.coordinator.channel import GridChannel
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.peers import NodeKeys

Answer = TypeVar("Answer")


class GridCarrier(Carrier):
    """Carries messages to clients; one that does not answer within the coordinator's `patience` has dropped out.

    Args:
        channel: The channel of the rounds.
    """

    def __init__(self, channel: GridChannel) -> None:
        self.channel = channel

    def joined(self) -> Sequence[Enrolment]:
        return self.channel.joined()

    def advertise(self, session: Session, clients: Sequence[str]) -> Mapping[str, Keys]:
        heads: dict[str, dict[str, Any]] = {client: {"members": session.clients} for client in clients}
        return self._ask("keys", session, heads, lambda head: encoding.keys_from_json(head.get("keys")))

    def share(self, session: Session, roster: Mapping[str, Keys]) -> Mapping[str, Mapping[str, bytes]]:
        public = {name: encoding.keys_to_json(keys) for name, keys in roster.items()}
        heads: dict[str, dict[str, Any]] = {client: {"roster": public} for client in roster}
        return self._ask("shares", session, heads, lambda head: encoding.boxes_from_json(head.get("boxes")))

    def train(
        self, session: Session, downloads: Downloads, boxes: Mapping[str, Mapping[str, bytes]]
    ) -> Iterator[Reply]:
        common = {"session": session.name, "members": session.clients, "roles": list(session.roles)}
        heads = {client: {**common, "boxes": encoding.bytes_to_json(boxes[client])} for client in downloads}
        yield from self.channel.exchange(session.round, downloads, heads)

    def agree(self, session: Session, survivors: Sequence[str]) -> Mapping[str, str]:
        heads: dict[str, dict[str, Any]] = {client: {"survivors": list(survivors)} for client in survivors}
        return self._ask(
            "agree", session, heads, lambda head: encoding.signature_from_json(head.get("signature"))
        )

    def reveal(self, session: Session, signatures: Mapping[str, str]) -> Mapping[str, Shares]:
        heads: dict[str, dict[str, Any]] = {client: {"signatures": dict(signatures)} for client in signatures}
        return self._ask("reveal", session, heads, lambda head: encoding.shares_from_json(head.get("shares")))

    def keyring(self) -> NodeKeys | None:
        coordinator, roster = self.channel.coordinator, self.channel.messenger.roster
        keys = {name: roster.key_of(name) for name in coordinator.names}
        return NodeKeys(keys) if all(keys.values()) else None

    def _ask(
        self,
        kind: str,
        session: Session,
        heads: Mapping[str, Mapping[str, Any]],
        read: Callable[[Mapping[str, Any]], Answer],
    ) -> dict[str, Answer]:
        with_session = {client: {"session": session.name, **head} for client, head in heads.items()}
        return ask(
            self.channel.messenger,
            kind,
            with_session,
            lambda _, head, __: read(head),
            seconds=self.channel.coordinator.patience,
        )
