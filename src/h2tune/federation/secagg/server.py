"""The server's side of secure aggregation; `protocol` lists the rounds and symbols."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import keys, masking, shamir
from h2tune.federation.secagg.masking import Words
from h2tune.federation.secagg.protocol import BOX, Keys, Shares, check_keys, protocol_error
from h2tune.federation.secagg.signed import SIGNATURE, Keyring, keys_statement, survivors_statement


class SecAggServer:
    """The server's side: accepts or rejects each client's message; a client without one has dropped out.

    Args:
        clients: Names of the clients of the round.
        session: As the clients'.
        threshold: t, as the clients'.
        keyring: The clients' public keys, so that one whose signature is wrong drops out alone; None leaves the
            check to the clients, who then all refuse.
    """

    def __init__(
        self, clients: Iterable[str], session: bytes, *, threshold: int, keyring: Keyring | None = None
    ) -> None:
        self.clients, self.session = set(clients), session
        self.threshold, self.keyring = threshold, keyring
        self.keys: dict[str, Keys] = {}
        self.boxes: dict[str, dict[str, bytes]] = {}
        self.survivors: set[str] = set()
        self.signatures: dict[str, str] = {}
        self.shares: dict[str, Shares] = {}
        self._state = "advertised"
        self._sum: Words = np.zeros(0, dtype=np.uint64)

    def advertised(self, client: str, sent: Keys) -> None:
        """Accept a client's public keys (AdvertiseKeys).

        Raises:
            H2TuneError: The message is not expected of this client now, or its keys are malformed or not signed.
        """
        self._expect("advertised", client, self.clients, self.keys)
        check_keys({**self.keys, client: sent})
        statement = keys_statement(self.session, self.threshold, client, sent.box, sent.mask)
        self._check_signature(client, statement, sent.signature)
        self.keys[client] = sent

    def roster(self) -> dict[str, Keys]:
        """Return U₁'s keys, for all of U₁.

        Raises:
            H2TuneError: U₁ has fewer than t clients.
        """
        self._go("advertised", "shared", self.keys)
        return dict(self.keys)

    def shared(self, client: str, boxes: Mapping[str, bytes]) -> None:
        """Accept a client's boxes (ShareKeys).

        Raises:
            H2TuneError: The message is not expected of this client now, or its boxes are malformed.
        """
        self._expect("shared", client, self.keys, self.boxes)
        if boxes.keys() != self.keys.keys() - {client} or any(len(box) != BOX for box in boxes.values()):
            raise protocol_error(client, "its boxes are not one for each other client")
        self.boxes[client] = dict(boxes)

    def delivery(self) -> dict[str, dict[str, bytes]]:
        """Return U₂'s boxes by owner and sender.

        Raises:
            H2TuneError: U₂ has fewer than t clients.
        """
        self._go("shared", "masked", self.boxes)
        return {
            owner: {s: sent[owner] for s, sent in self.boxes.items() if s != owner} for owner in self.boxes
        }

    def masked(self, client: str, values: Words) -> None:
        """Add a client's masked values to the sum (MaskedInputCollection).

        Raises:
            H2TuneError: The message is not expected of this client now, or its values have another type or shape.
        """
        self._expect("masked", client, self.boxes, self.survivors)
        expected = self._sum.shape if self.survivors else (values.size,)
        if values.dtype != np.uint64 or values.shape != expected:
            reason = f"its values are {values.dtype} {values.shape}, not uint64 {expected}"
            raise protocol_error(client, reason)
        if self.survivors:
            masking.add(self._sum, values, 1)
        else:
            self._sum = values.copy()
        self.survivors.add(client)

    def ask(self) -> list[str]:
        """Return U₃, for all of U₃.

        Raises:
            H2TuneError: U₃ has fewer than t clients.
        """
        self._go("masked", "agreed", self.survivors)
        return sorted(self.survivors)

    def agreed(self, client: str, signature: str) -> None:
        """Accept a client's signature of U₃ (ConsistencyCheck).

        Raises:
            H2TuneError: The message is not expected of this client now, or it is no signature of U₃ by it.
        """
        self._expect("agreed", client, self.survivors, self.signatures)
        statement = survivors_statement(self.session, self.keys, self.survivors)
        self._check_signature(client, statement, signature)
        self.signatures[client] = signature

    def agreement(self) -> dict[str, str]:
        """Return U₄'s signatures of U₃, for all of U₄.

        Raises:
            H2TuneError: U₄ has fewer than t clients.
        """
        self._go("agreed", "revealed", self.signatures)
        return dict(self.signatures)

    def revealed(self, client: str, shares: Shares) -> None:
        """Accept a client's shares (Unmasking).

        Raises:
            H2TuneError: The message is not expected of this client now, or it has not the shares of U₂.
        """
        self._expect("revealed", client, self.signatures, self.shares)
        dropped = self.boxes.keys() - self.survivors
        complete = shares.seeds.keys() == self.survivors and shares.mask_keys.keys() == dropped
        sizes = {len(share) for share in (*shares.seeds.values(), *shares.mask_keys.values())}
        if not complete or sizes != {shamir.SIZE}:
            raise protocol_error(client, "its shares are not those that were requested")
        self.shares[client] = shares

    def total(self) -> Words:
        """Return the sum of the survivors' values modulo 2⁶⁴, with all masks removed.

        Raises:
            H2TuneError: Fewer than t clients revealed shares, or the shares of a dropped client do not fit its key.
        """
        self._go("revealed", "over", self.shares)
        total, length = self._sum, self._sum.size
        index = {name: i for i, name in enumerate(sorted(self.keys), 1)}
        for name in sorted(self.survivors):
            seed = shamir.combine({index[c]: s.seeds[name] for c, s in self.shares.items()}, self.threshold)
            masking.add(total, keys.expand(seed, length), -1)
        for dropped in sorted(self.boxes.keys() - self.survivors):
            parts = {index[c]: s.mask_keys[dropped] for c, s in self.shares.items()}
            private = shamir.combine(parts, self.threshold)
            if keys.public_of(private) != self.keys[dropped].mask:
                raise protocol_error(dropped, "the shares of its key do not fit the key it advertised")
            for name in self.survivors:
                secret = keys.agree(private, self.keys[name].mask, b"mask|" + self.session)
                masking.add(total, keys.expand(secret, length), -masking.pair_sign(name, dropped))
        return total

    def bytes_up(self) -> int:
        """Return the most bytes that a client sent besides its values: keys, boxes, shares and two signatures."""
        sent = 2 * keys.SIZE + (len(self.keys) - 1) * BOX + len(self.boxes) * shamir.SIZE
        return sent + 2 * SIGNATURE

    def _check_signature(self, client: str, statement: bytes, signature: str) -> None:
        if self.keyring is not None and not self.keyring.is_signed(client, statement, signature):
            raise protocol_error(client, "its message is not signed with its key")

    def _expect(self, state: str, client: str, known: Collection[str], done: Collection[str]) -> None:
        if self._state != state or client not in known or client in done:
            raise protocol_error(client, f"a message of '{state}' is not expected of it")

    def _go(self, state: str, following: str, present: Collection[str]) -> None:
        if self._state != state:
            raise H2TuneError(f"'{state}' is over", where="secure aggregation")
        if len(present) < self.threshold:
            reason = f"{len(present)} clients {state}, {self.threshold} are needed"
            raise H2TuneError(reason, where="secure aggregation")
        self._state = following
