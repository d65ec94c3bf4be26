"""A client's side of secure aggregation; `protocol` lists the rounds and symbols."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from h2tune.federation.secagg import keys, masking, shamir
from h2tune.federation.secagg.masking import Words
from h2tune.federation.secagg.progress import Progress, Secrets
from h2tune.federation.secagg.protocol import Keys, Shares, check_keys, protocol_error
from h2tune.federation.secagg.signed import Signer, keys_statement, survivors_statement
from h2tune.functional.quorum import threshold_needed


class SecAggClient:
    """A client's side of the protocol.

    Args:
        name: Its name.
        session: Identifies federation, run, round and attempt; what belongs to another session cannot be used.
        threshold: t: number of shares that restore a secret, and the least number of clients in a sum.
        clients: Number of clients in the federation; the sum over more could wrap.
        signer: Its signing key, and the public ones of all clients.
        progress: How far it is; by default at the start, with new secrets.
    """

    def __init__(
        self,
        name: str,
        session: bytes,
        *,
        threshold: int,
        clients: int,
        signer: Signer,
        progress: Progress | None = None,
    ) -> None:
        self.name, self.session, self.threshold, self.clients = name, session, threshold, clients
        self.signer, self._at = signer, progress or Progress()

    @property
    def values(self) -> str:
        """Checksum of the values that it masked; empty before, and if all are zero."""
        return self._at.values

    @property
    def survivors(self) -> tuple[str, ...]:
        """U₃ as it signed it, in order; empty before."""
        return self._at.survivors

    def advertise(self) -> Keys:
        """AdvertiseKeys: return the signed public keys; the same ones if called again before `share`."""
        own = self._at.secrets
        box, mask = keys.public_of(own.box), keys.public_of(own.mask)
        if self._at.state != "share":
            self._go("advertise", "share")
            self._at = replace(
                self._at, signature=self.signer.sign(self._keys_statement(self.name, box, mask))
            )
        return Keys(box, mask, self._at.signature)

    def share(self, roster: Mapping[str, Keys]) -> dict[str, bytes]:
        """ShareKeys: return a box of shares for every other client in U₁.

        Raises:
            H2TuneError: U₁ is too small, too large for t or for the sum not to wrap, lacks this client, has other keys
                of it, a key twice, an unknown client, or keys that their client did not sign for this session.
        """
        self._expect("share")
        self._check_roster(roster)
        self._go("share", "mask")
        self._at = replace(self._at, roster=dict(roster))
        names = sorted(roster)
        own = self._at.secrets
        parts = [shamir.split(secret, self.threshold, len(names)) for secret in (own.mask, own.seed)]
        shares = {name: parts[0][i] + parts[1][i] for i, name in enumerate(names)}
        self._at = replace(self._at, held={self.name: shares.pop(self.name)})
        return {
            name: keys.seal(self._box_secret(name), content, self._about(self.name, name))
            for name, content in shares.items()
        }

    def mask(self, boxes: Mapping[str, bytes], values: Words) -> Words:
        """MaskedInputCollection: return the values under this client's masks; bit-identical if called again.

        Args:
            boxes: U₂'s boxes for this client, by sender.
            values: Integers modulo 2⁶⁴ (length,).

        Raises:
            H2TuneError: A sender is unknown, too few sent boxes, or a box cannot be opened; or it was called before
                with other boxes or values, whose difference would reveal something.
        """
        at = self._at
        self._expect("agree" if at.masked else "mask")
        if set(boxes) - (at.roster.keys() - {self.name}):
            raise protocol_error(self.name, "a box comes from a sender that is not in the roster")
        self._check_number([self.name, *boxes], "sent shares")
        held = {
            sender: keys.unseal(self._box_secret(sender), box, self._about(sender, self.name))
            for sender, box in boxes.items()
        }
        masked = values + keys.expand(at.secrets.seed, values.size)
        for other in boxes:
            secret = keys.agree(at.secrets.mask, at.roster[other].mask, b"mask|" + self.session)
            masking.add(masked, keys.expand(secret, values.size), masking.pair_sign(self.name, other))
        digest = hashlib.sha256(masked.tobytes()).hexdigest()
        if at.masked not in ("", digest):
            raise protocol_error(self.name, "it masked other values in this round before")
        plain = hashlib.sha256(values.tobytes()).hexdigest() if values.any() else ""
        self._at = replace(at, state="agree", masked=digest, values=plain, held={**at.held, **held})
        return masked

    def agree(self, survivors: Collection[str]) -> str:
        """ConsistencyCheck: return the signature of U₃; in a session it signs one set alone.

        Raises:
            H2TuneError: U₃ is too small, lacks this client, has a client that sent no shares, or is not the set that
                it signed before.
        """
        self._expect("reveal" if self._at.survivors else "agree")
        alive = tuple(sorted(set(survivors)))
        unknown = sorted(set(alive) - self._at.held.keys())
        if unknown or self.name not in alive:
            fault = f"'{unknown[0]}' sent no shares" if unknown else "this client is not among them"
            raise protocol_error(self.name, f"the survivors are not those who sent shares: {fault}")
        self._check_number(alive, "survived")
        if self._at.survivors not in ((), alive):
            signed = ", ".join(self._at.survivors)
            raise protocol_error(
                self.name, f"it signed other survivors in this round before: {signed}; now {', '.join(alive)}"
            )
        self._at = replace(self._at, state="reveal", survivors=alive)
        return self.signer.sign(self._survivors_statement())

    def reveal(self, signatures: Mapping[str, str]) -> Shares:
        """Unmasking: return shares of survivors' seeds and of the other clients' keys for masks, once per session.

        Args:
            signatures: U₄'s signatures of U₃, by client.

        Raises:
            H2TuneError: Fewer than t clients signed U₃, one of them did not survive, or one signed another set.
        """
        self._expect("reveal")
        alive = self._at.survivors
        strangers = sorted(signatures.keys() - set(alive))
        if strangers:
            raise protocol_error(self.name, f"'{strangers[0]}' is not among the survivors that it would sign")
        self._check_number(signatures, "signed the survivors")
        statement = self._survivors_statement()
        for name, signature in sorted(signatures.items()):
            if not self.signer.is_signed(name, statement, signature):
                reason = f"'{name}' did not sign these survivors for this session: {', '.join(alive)}"
                raise protocol_error(self.name, reason)
        held, half = self._at.held, shamir.SIZE
        self._at = replace(self._at, state="over", held={}, secrets=Secrets(b"", b"", b""))
        return Shares(
            {name: share[:half] for name, share in held.items() if name not in alive},
            {name: share[half:] for name, share in held.items() if name in alive},
        )

    def state(self) -> dict[str, Any]:
        """Return the whole state as JSON, private keys included."""
        return {
            "name": self.name,
            "session": self.session.decode(),
            "threshold": self.threshold,
            "most": self.clients,
            "progress": self._at.to_json(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], signer: Signer) -> SecAggClient:
        """Return the client whose `state` this is.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is no such state.
        """
        return cls(
            state["name"],
            state["session"].encode(),
            threshold=state["threshold"],
            clients=state["most"],
            signer=signer,
            progress=Progress.from_json(state["progress"]),
        )

    def _check_roster(self, roster: Mapping[str, Keys]) -> None:
        self._check_number(roster, "advertised keys")
        if roster.get(self.name) != self.advertise():
            raise protocol_error(self.name, "its keys are not in the roster as it sent them")
        if self.threshold < threshold_needed(len(roster)):
            reason = f"the threshold {self.threshold} is below two thirds of {len(roster)} clients"
            raise protocol_error(self.name, reason)
        check_keys(roster)
        strangers = sorted(set(roster) - set(self.signer.names))
        if strangers:
            raise protocol_error(
                self.name, f"'{strangers[0]}' is in the roster, and this member knows no key of it"
            )
        for name, sent in sorted(roster.items()):
            if not sent.signature:
                raise protocol_error(self.name, f"the keys of '{name}' are not signed")
            statement = self._keys_statement(name, sent.box, sent.mask)
            if not self.signer.is_signed(name, statement, sent.signature):
                raise protocol_error(
                    self.name, f"'{name}' did not sign these keys for this session and threshold"
                )

    def _keys_statement(self, name: str, box: bytes, mask: bytes) -> bytes:
        return keys_statement(self.session, self.threshold, name, box, mask)

    def _survivors_statement(self) -> bytes:
        return survivors_statement(self.session, self._at.roster, self._at.survivors)

    def _box_secret(self, other: str) -> bytes:
        return keys.agree(self._at.secrets.box, self._at.roster[other].box, b"box|" + self.session)

    def _about(self, sender: str, owner: str) -> bytes:
        return b"|".join((self.session, sender.encode(), owner.encode()))  # no name has a '|'

    def _check_number(self, clients: Collection[str], did: str) -> None:
        if not self.threshold <= len(clients) <= self.clients:
            reason = f"{len(clients)} clients {did}, not {self.threshold} to {self.clients}"
            raise protocol_error(self.name, reason)

    def _expect(self, state: str) -> None:
        if self._at.state != state:
            raise protocol_error(self.name, f"it got the message '{state}' in the state '{self._at.state}'")

    def _go(self, state: str, following: str) -> None:
        self._expect(state)
        self._at = replace(self._at, state=following)
