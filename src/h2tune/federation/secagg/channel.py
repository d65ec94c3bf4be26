"""Secure aggregation between the round loop and an engine: the rounds of the protocol around a round of training."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.channel import Channel, Downloads, Reply, Unmasked
from h2tune.federation.messages import Enrolment
from h2tune.federation.secagg.protocol import Keys, Shares
from h2tune.federation.secagg.server import SecAggServer
from h2tune.federation.secagg.vector import tensor_of, words_of
from h2tune.federation.strategy import Decoded


@dataclass(frozen=True)
class Session:
    """One run of the protocol.

    Args:
        name: Names federation, round and attempt: a round that is done again has new keys.
        round: Number of the round.
        threshold: t.
        members: Number of members in the federation.
        roles: Roles whose values are summed, in the order of the vector.
    """

    name: str
    round: int
    threshold: int
    members: int
    roles: tuple[str, ...]


class Carrier(ABC):
    """Carries the protocol's messages to members and back; who gives no answer is missing from what is returned."""

    @abstractmethod
    def advertise(self, session: Session, members: Sequence[str]) -> Mapping[str, Keys]:
        """Return the public keys of each member (AdvertiseKeys)."""

    @abstractmethod
    def share(self, session: Session, roster: Mapping[str, Keys]) -> Mapping[str, Mapping[str, bytes]]:
        """Return each member's boxes of shares for the others (ShareKeys)."""

    @abstractmethod
    def train(
        self, session: Session, downloads: Downloads, boxes: Mapping[str, Mapping[str, bytes]]
    ) -> Iterator[Reply]:
        """Yield the members' replies, their updates under masks (MaskedInputCollection)."""

    @abstractmethod
    def reveal(self, session: Session, survivors: Sequence[str]) -> Mapping[str, Shares]:
        """Return the shares that each survivor reveals (Unmasking)."""

    @abstractmethod
    def joined(self) -> Sequence[Enrolment]:
        """Return members that enrolled since the last call."""


class MaskedChannel(Channel):
    """A channel whose updates are under masks, and whose sum alone can be unmasked.

    Args:
        carrier: Reaches the members.
        federation: Name of the federation.
        threshold: t.
        members: Number of members in the federation.
        roles: Roles whose values are summed.
    """

    def __init__(
        self, carrier: Carrier, federation: str, *, threshold: int, members: int, roles: Sequence[str]
    ) -> None:
        self.carrier, self.federation = carrier, federation
        self.threshold, self.members, self.roles = threshold, members, tuple(roles)
        self._asked: list[str] = []
        self._refused: dict[str, str] = {}

    def joined(self) -> Sequence[Enrolment]:
        return self.carrier.joined()

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Agree on keys and shares (AdvertiseKeys, ShareKeys), then let members train and mask what they learned.

        A member that fails in training has dropped out after ShareKeys.

        Raises:
            H2TuneError: Fewer than t members sent keys and shares.
        """
        name = f"{self.federation}|{round_number}|{secrets.token_hex(8)}"
        self._session = Session(name, round_number, self.threshold, self.members, self.roles)
        self._asked, self._refused = sorted(downloads), {}
        self._server = server = SecAggServer(self._asked, name.encode(), threshold=self.threshold)
        for member, advertised in self.carrier.advertise(self._session, self._asked).items():
            self._take(server.advertised, member, advertised)
        for member, boxes in self.carrier.share(self._session, server.roster()).items():
            self._take(server.shared, member, boxes)
        delivery = server.delivery()
        for member in sorted(downloads.keys() - delivery.keys()):
            yield Reply(member, None, [], self._refused.get(member, "it sent no keys and shares"))
        yield from self.carrier.train(self._session, downloads.only(list(delivery)), delivery)

    def unmask(self, updates: Sequence[Decoded[Any]]) -> Unmasked:
        """Return the sum of the updates' values (Unmasking), and what an event says of it.

        Args:
            updates: Those that passed the gate; whose did not counts as having dropped out.

        Raises:
            H2TuneError: Fewer than t members are left, or reveal their shares.
        """
        server = self._server
        for update in updates:
            server.masked(update.client, words_of(update.content).ravel())
        survivors = server.ask()
        for member, shares in self.carrier.reveal(self._session, survivors).items():
            self._take(server.revealed, member, shares)
        silent = sorted(
            set(survivors) - server.shares.keys()
        )  # borne as well: their values are in the sum already
        try:
            total = server.total()
        except H2TuneError as error:
            told = "".join(f"; '{name}': {self._refused.get(name, 'no shares')}" for name in silent)
            remedy = "Fix the members that failed and go on with --resume"
            raise H2TuneError(f"{error.message}{told}", where="secure aggregation", remedy=remedy) from None
        facts = {
            "threshold": self.threshold,
            "survivors": survivors,
            "dropped": sorted(set(self._asked) - set(survivors)),
            "silent": silent,
            "bytes_up_of_keys_and_shares": server.bytes_up(),
        }
        return Unmasked(tensor_of(total).reshape(updates[0].content.shape), facts)

    def _take(self, message: Any, member: str, content: Any) -> None:
        """Take in a message; whose is malformed has dropped out."""
        try:
            message(member, content)
        except H2TuneError as error:
            self._refused[member] = error.message
