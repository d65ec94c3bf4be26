"""A client's side of secure aggregation; `protocol` lists the rounds and symbols."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from h2tune.federation.secagg import keys, masking, shamir
from h2tune.federation.secagg.encoding import bytes_from_json, bytes_to_json, keys_to_json, roster_from_json
from h2tune.federation.secagg.masking import Words
from h2tune.federation.secagg.protocol import Keys, Shares, check_keys, protocol_error
from h2tune.functional.quorum import threshold_needed


@dataclass(frozen=True)
class Secrets:
    """A client's secrets of one session.

    Args:
        box: Private key for boxes (of c).
        mask: Private key for masks (of s).
        seed: Seed of its own mask (b).
    """

    box: bytes
    mask: bytes
    seed: bytes

    @classmethod
    def new(cls) -> Secrets:
        """Return random secrets."""
        return cls(keys.new_private(), keys.new_private(), secrets.token_bytes(keys.SIZE))

    @property
    def public(self) -> Keys:
        """The public keys."""
        return Keys(keys.public_of(self.box), keys.public_of(self.mask))


@dataclass(frozen=True)
class Progress:
    """How far a client is in the protocol.

    Args:
        state: The next message: "advertise", "share", "mask", "reveal", or "over".
        roster: U₁'s public keys.
        held: The shares that this client holds, by the client that they are of.
        masked: Checksum of the values that it masked; empty before.
    """

    state: str
    roster: Mapping[str, Keys]
    held: Mapping[str, bytes]
    masked: str


class SecAggClient:
    """A client's side of the protocol.

    Args:
        name: Its name.
        session: Identifies federation and round; boxes and masks of another session cannot be used.
        threshold: t: number of shares that restore a secret, and the least number of clients in a sum.
        clients: Number of clients in the federation; the sum over more could wrap.
        secrets: Its secrets; by default new ones.
        progress: How far it is; by default at the start.
    """

    def __init__(
        self,
        name: str,
        session: bytes,
        *,
        threshold: int,
        clients: int,
        secrets: Secrets | None = None,
        progress: Progress = Progress("advertise", {}, {}, ""),
    ) -> None:
        self.name, self.session, self.threshold, self.clients = name, session, threshold, clients
        self._secrets = secrets or Secrets.new()
        self._state, self._masked = progress.state, progress.masked
        self._roster, self._held = dict(progress.roster), dict(progress.held)

    def advertise(self) -> Keys:
        """AdvertiseKeys: return the public keys; the same ones if called again before `share`."""
        if self._state != "share":
            self._go("advertise", "share")
        return self._secrets.public

    def share(self, roster: Mapping[str, Keys]) -> dict[str, bytes]:
        """ShareKeys: return a box of shares for every other client in U₁.

        Raises:
            H2TuneError: U₁ is too small, too large for t or for the sum not to wrap, lacks this client, has other keys
                of it, or has a key twice.
        """
        self._go("share", "mask")
        self._check_number(roster, "advertised keys")
        if roster.get(self.name) != self._secrets.public:
            raise protocol_error(self.name, "its keys are not in the roster as it sent them")
        if self.threshold < threshold_needed(len(roster)):
            reason = f"the threshold {self.threshold} is below two thirds of {len(roster)} clients"
            raise protocol_error(self.name, reason)
        check_keys(roster)
        self._roster = dict(roster)
        names = sorted(roster)
        parts = [
            shamir.split(secret, self.threshold, len(names))
            for secret in (self._secrets.mask, self._secrets.seed)
        ]
        shares = {name: parts[0][i] + parts[1][i] for i, name in enumerate(names)}
        self._held[self.name] = shares.pop(self.name)
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
        self._go("reveal" if self._masked else "mask", "reveal")
        if set(boxes) - (self._roster.keys() - {self.name}):
            raise protocol_error(self.name, "a box comes from a sender that is not in the roster")
        self._check_number([self.name, *boxes], "sent shares")
        held = {
            sender: keys.unseal(self._box_secret(sender), box, self._about(sender, self.name))
            for sender, box in boxes.items()
        }
        masked = values + keys.expand(self._secrets.seed, values.size)
        for other in boxes:
            secret = keys.agree(self._secrets.mask, self._roster[other].mask, b"mask|" + self.session)
            masking.add(masked, keys.expand(secret, values.size), masking.pair_sign(self.name, other))
        digest = hashlib.sha256(masked.tobytes()).hexdigest()
        if self._masked not in ("", digest):
            raise protocol_error(self.name, "it masked other values in this round before")
        self._masked = digest
        self._held |= held
        return masked

    def reveal(self, survivors: Collection[str]) -> Shares:
        """Unmasking: return shares of survivors' seeds and of the other clients' keys for masks, once per session.

        Raises:
            H2TuneError: U₃ is too small, lacks this client, or has a client that sent no shares.
        """
        self._go("reveal", "over")
        alive = set(survivors)
        if self.name not in alive or alive - self._held.keys():
            reason = "the survivors are not those who sent shares, with this client among them"
            raise protocol_error(self.name, reason)
        self._check_number(alive, "survived")
        held, half = self._held, shamir.SIZE
        self._held, self._secrets = {}, Secrets(b"", b"", b"")
        return Shares(
            {name: share[:half] for name, share in held.items() if name not in alive},
            {name: share[half:] for name, share in held.items() if name in alive},
        )

    def state(self) -> dict[str, Any]:
        """Return the whole state as JSON, private keys included."""
        private = {"box": self._secrets.box, "mask": self._secrets.mask, "seed": self._secrets.seed}
        return {
            "name": self.name,
            "session": self.session.decode(),
            "threshold": self.threshold,
            "most": self.clients,
            "state": self._state,
            "private": bytes_to_json(private),
            "roster": {name: keys_to_json(sent) for name, sent in self._roster.items()},
            "held": bytes_to_json(self._held),
            "masked": self._masked,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SecAggClient:
        """Return the client whose `state` this is."""
        private = bytes_from_json(state["private"])
        roster, held = roster_from_json(state["roster"]), bytes_from_json(state["held"])
        return cls(
            state["name"],
            state["session"].encode(),
            threshold=state["threshold"],
            clients=state["most"],
            secrets=Secrets(private["box"], private["mask"], private["seed"]),
            progress=Progress(state["state"], roster, held, state["masked"]),
        )

    def _box_secret(self, other: str) -> bytes:
        return keys.agree(self._secrets.box, self._roster[other].box, b"box|" + self.session)

    def _about(self, sender: str, owner: str) -> bytes:
        return b"|".join((self.session, sender.encode(), owner.encode()))  # no name has a '|'

    def _check_number(self, clients: Collection[str], did: str) -> None:
        if not self.threshold <= len(clients) <= self.clients:
            reason = f"{len(clients)} clients {did}, not {self.threshold} to {self.clients}"
            raise protocol_error(self.name, reason)

    def _go(self, state: str, following: str) -> None:
        if self._state != state:
            raise protocol_error(self.name, f"it got the message '{state}' in the state '{self._state}'")
        self._state = following
