"""Secure aggregation between the round loop and an engine: the rounds of the protocol around a round of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from h2tune.errors import H2TuneError
from h2tune.federation.channel import Channel, Downloads, Reply, Unmasked
from h2tune.federation.messages import Enrolment
from h2tune.federation.secagg.protocol import Keys, Shares, new_session
from h2tune.federation.secagg.server import SecAggServer
from h2tune.federation.secagg.signed import Keyring
from h2tune.federation.secagg.vector import tensor_of, words_of
from h2tune.federation.strategy import Decoded

Content = TypeVar("Content")


@dataclass(frozen=True)
class Session:
    """One run of the protocol.

    Args:
        name: Federation, run, round and a random part: a repeated round has new keys.
        round: Number of the round.
        threshold: t.
        clients: Number of clients in the federation.
        roles: Roles whose values are summed, in the order of the vector.
    """

    name: str
    round: int
    threshold: int
    clients: int
    roles: tuple[str, ...]


class Carrier(ABC):
    """Carries the protocol's messages to clients and back; results lack the clients that did not answer."""

    @abstractmethod
    def advertise(self, session: Session, clients: Sequence[str]) -> Mapping[str, Keys]:
        """Return the public keys of each client (AdvertiseKeys)."""

    @abstractmethod
    def share(self, session: Session, roster: Mapping[str, Keys]) -> Mapping[str, Mapping[str, bytes]]:
        """Return each client's boxes of shares for the others (ShareKeys)."""

    @abstractmethod
    def train(
        self, session: Session, downloads: Downloads, boxes: Mapping[str, Mapping[str, bytes]]
    ) -> Iterator[Reply]:
        """Yield the clients' replies, their updates under masks (MaskedInputCollection)."""

    @abstractmethod
    def agree(self, session: Session, survivors: Sequence[str]) -> Mapping[str, str]:
        """Return each survivor's signature of the survivors (ConsistencyCheck)."""

    @abstractmethod
    def reveal(self, session: Session, signatures: Mapping[str, str]) -> Mapping[str, Shares]:
        """Return the shares that each of those who signed reveals (Unmasking)."""

    @abstractmethod
    def keyring(self) -> Keyring | None:
        """Return the clients' public keys; None where they are not known."""

    @abstractmethod
    def joined(self) -> Sequence[Enrolment]:
        """Return clients that enrolled since the last call."""


class MaskedRound:
    """The server's side of one round: passes on valid messages and records why others were rejected.

    Args:
        session: The session.
        clients: Names of the clients of the round.
        keyring: Their public keys; None where they are not known.
    """

    def __init__(self, session: Session, clients: Sequence[str], keyring: Keyring | None) -> None:
        self.session, self.clients = session, sorted(clients)
        self.server = SecAggServer(
            self.clients, session.name.encode(), threshold=session.threshold, keyring=keyring
        )
        self._rejected: dict[str, str] = {}

    def receive(self, accept: Callable[[str, Content], None], messages: Mapping[str, Content]) -> None:
        """Pass messages to the server; the sender of a malformed one has dropped out.

        Args:
            accept: The server's method for this kind of message.
            messages: Message by client.
        """
        for client, content in messages.items():
            try:
                accept(client, content)
            except H2TuneError as error:
                self._rejected[client] = error.message

    def reason(self, client: str, otherwise: str) -> str:
        """Return why a client's message was rejected, or `otherwise` where it sent none."""
        return self._rejected.get(client, otherwise)


class MaskedChannel(Channel):
    """A channel whose updates are under masks: only their sum can be unmasked.

    Args:
        carrier: Carries messages to the clients.
        federation: Name of the federation.
        threshold: t.
        clients: Number of clients in the federation.
        roles: Roles whose values are summed.
        run: Name of the run.
    """

    def __init__(
        self,
        carrier: Carrier,
        federation: str,
        *,
        threshold: int,
        clients: int,
        roles: Sequence[str],
        run: str = "local",
    ) -> None:
        self.carrier, self.federation, self.run = carrier, federation, run
        self.threshold, self.clients, self.roles = threshold, clients, tuple(roles)
        self._round: MaskedRound | None = None

    def joined(self) -> Sequence[Enrolment]:
        return self.carrier.joined()

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Agree on keys and shares (AdvertiseKeys, ShareKeys), then yield updates under masks.

        A client that fails in training has dropped out after ShareKeys.

        Raises:
            H2TuneError: Fewer than t clients sent keys and shares.
        """
        name = new_session(self.federation, self.run, round_number)
        session = Session(name, round_number, self.threshold, self.clients, self.roles)
        self._round = masked = MaskedRound(session, list(downloads), self.carrier.keyring())
        server = masked.server
        masked.receive(server.advertised, self.carrier.advertise(session, masked.clients))
        masked.receive(server.shared, self.carrier.share(session, server.roster()))
        delivery = server.delivery()
        for client in sorted(downloads.keys() - delivery.keys()):
            yield Reply(client, None, [], masked.reason(client, "it sent no keys and shares"))
        yield from self.carrier.train(session, downloads.only(list(delivery)), delivery)

    def unmask(self, updates: Sequence[Decoded[Any]]) -> Unmasked:
        """Return the sum of the updates' values (ConsistencyCheck, Unmasking), with the facts for the round's event.

        Args:
            updates: Those that passed the gate; the other clients count as dropped out.

        Raises:
            H2TuneError: Fewer than t clients are left, or reveal their shares.
        """
        if self._round is None:
            raise RuntimeError("unmask was called before exchange")
        masked, server = self._round, self._round.server
        for update in updates:
            server.masked(update.client, words_of(update.content).ravel())
        survivors = server.ask()
        try:
            masked.receive(server.agreed, self.carrier.agree(masked.session, survivors))
            masked.receive(server.revealed, self.carrier.reveal(masked.session, server.agreement()))
            total = server.total()
        except H2TuneError as error:
            raise self._unfinished(error, survivors) from None
        # the values of silent survivors are in the sum already, and the others' shares unmask them
        silent = sorted(set(survivors) - server.shares.keys())
        facts = {
            "threshold": self.threshold,
            "survivors": survivors,
            "dropped": sorted(set(masked.clients) - set(survivors)),
            "silent": silent,
            "bytes_up_of_keys_and_shares": server.bytes_up(),
        }
        return Unmasked(tensor_of(total).reshape(updates[0].content.shape), facts)

    def _unfinished(self, error: H2TuneError, survivors: Sequence[str]) -> H2TuneError:
        """Return the error of a round that cannot be unmasked, with why survivors sent nothing."""
        assert self._round is not None  # noqa: S101 - `unmask` checked it
        masked, server = self._round, self._round.server
        signed = len(server.signatures) >= self.threshold
        silent = sorted(set(survivors) - (server.shares.keys() if signed else server.signatures.keys()))
        reasons = "".join(f"; '{name}': {masked.reason(name, 'no answer')}" for name in silent)
        remedy = "Fix the clients that failed, and start the run again: it goes on with this round"
        return H2TuneError(f"{error.message}{reasons}", where="secure aggregation", remedy=remedy)
