"""The clients' sides of secure aggregation in this process, around the embedded engine.

Here secure aggregation tests the arithmetic and drop-outs, and protects nothing: one process has everything. The
messages between both sides are those that would pass between machines.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from h2tune.errors import H2TuneError
from h2tune.events import Event
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.messages import Enrolment, Tensors, Update, manifest
from h2tune.federation.secagg.channel import Carrier, Session
from h2tune.federation.secagg.client import SecAggClient
from h2tune.federation.secagg.protocol import Keys, Shares
from h2tune.federation.secagg.signed import Keyring, Signer
from h2tune.federation.secagg.vector import MASKED, PLAIN, tensor_of, words_of

log = logging.getLogger(__name__)
PRIVATE = ("relation", "coverage")
"""Keys of a client's events that describe its P and Ω; they are not sent."""
Answer = TypeVar("Answer")


class LocalCarrier(Carrier):
    """Carries the protocol's messages within this process.

    Args:
        engine: Runs the clients' rounds.
    """

    def __init__(self, engine: Channel) -> None:
        self.engine = engine
        self.clients: dict[str, SecAggClient] = {}

    def joined(self) -> Sequence[Enrolment]:
        return self.engine.joined()

    def keyring(self) -> Keyring | None:
        return None  # the clients check

    def advertise(self, session: Session, clients: Sequence[str]) -> Mapping[str, Keys]:
        name, threshold = session.name.encode(), session.threshold
        signers = local_signers(clients)
        self.clients = {
            client: SecAggClient(
                client, name, threshold=threshold, clients=session.clients, signer=signers[client]
            )
            for client in clients
        }
        return self._each(clients, lambda client: client.advertise())

    def share(self, session: Session, roster: Mapping[str, Keys]) -> Mapping[str, Mapping[str, bytes]]:
        return self._each(roster, lambda client: client.share(roster))

    def train(
        self, session: Session, downloads: Downloads, boxes: Mapping[str, Mapping[str, bytes]]
    ) -> Iterator[Reply]:
        for reply in self.engine.exchange(session.round, downloads):
            try:
                yield mask_reply(reply, self.clients[reply.client], boxes[reply.client])
            except H2TuneError as error:
                yield Reply(reply.client, None, [], error.message)

    def agree(self, session: Session, survivors: Sequence[str]) -> Mapping[str, str]:
        return self._each(survivors, lambda client: client.agree(survivors))

    def reveal(self, session: Session, signatures: Mapping[str, str]) -> Mapping[str, Shares]:
        return self._each(signatures, lambda client: client.reveal(signatures))

    def _each(self, names: Iterable[str], call: Callable[[SecAggClient], Answer]) -> dict[str, Answer]:
        answers = {}
        for name in names:
            try:
                answers[name] = call(self.clients[name])
            except Exception as error:  # the round continues without this client
                log.warning("secure aggregation, '%s': %s", name, error)
        return answers


class LocalSigner(Signer):
    """Signs with an Ed25519 key that lives as long as a session.

    Args:
        private: The key.
        public: All clients' public keys.
    """

    def __init__(self, private: Ed25519PrivateKey, public: Mapping[str, Ed25519PublicKey]) -> None:
        self.private, self.public = private, public

    @property
    def names(self) -> Collection[str]:
        return self.public.keys()

    def is_signed(self, name: str, statement: bytes, signature: str) -> bool:
        try:
            self.public[name].verify(base64.b64decode(signature, validate=True), statement)
        except (InvalidSignature, ValueError):
            return False
        return True

    def sign(self, statement: bytes) -> str:
        return base64.b64encode(self.private.sign(statement)).decode()


def local_signers(clients: Iterable[str]) -> dict[str, LocalSigner]:
    """Return a signer with a new key for each client."""
    private = {client: Ed25519PrivateKey.generate() for client in clients}
    public = {client: key.public_key() for client, key in private.items()}
    return {client: LocalSigner(key, public) for client, key in private.items()}


def mask_reply(reply: Reply, client: SecAggClient, boxes: Mapping[str, bytes]) -> Reply:
    """Return a reply as it is sent: values under masks, events without P and Ω, and no number of examples.

    Args:
        reply: The reply of a client's round.
        client: The client's side of the protocol.
        boxes: U₂'s boxes for this client, by sender.

    Raises:
        H2TuneError: As `SecAggClient.mask`.
    """
    events = [{key: value for key, value in event.items() if key not in PRIVATE} for event in reply.events]
    if reply.update is None:
        return Reply(reply.client, None, events, reply.reason)
    plain = reply.update.tensors[PLAIN]
    values = client.mask(boxes, words_of(plain).ravel())
    sent = {MASKED: tensor_of(values).reshape(plain.shape)}
    events = [_with_checksums_of(sent, event) for event in events]
    return Reply(reply.client, Update(reply.client, reply.update.round, 1, sent), events)


def _with_checksums_of(sent: Tensors, event: Event) -> Event:
    """Return an event with the checksums of what was sent: those of plain values would confirm a guess at them."""
    return {**event, "sent": manifest(sent)} if "sent" in event else event
