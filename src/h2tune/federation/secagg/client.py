"""A member's half of secure aggregation; `protocol` names the rounds and symbols."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from h2tune.federation.secagg import keys, masking, shamir
from h2tune.federation.secagg.encoding import bytes_from_json, bytes_to_json, keys_to_json, roster_from_json
from h2tune.federation.secagg.masking import Words
from h2tune.federation.secagg.protocol import Keys, Shares, check_keys, refused
from h2tune.functional.quorum import threshold_needed


class SecAggClient:
    """A member's half.

    Args:
        name: Its name.
        session: Names the federation and the round; boxes and masks of another session are of no use.
        threshold: t: shares that give a secret back, and the least number of members that it sums with.
        most: Number of members in the federation; the sum over more could wrap.
    """

    def __init__(self, name: str, session: bytes, *, threshold: int, most: int) -> None:
        self.name, self.session, self.threshold, self.most = name, session, threshold, most
        self._state = "advertise"
        self._box_key, self._mask_key, self._seed = (
            keys.new_private(),
            keys.new_private(),
            secrets.token_bytes(keys.SIZE),
        )
        self._roster: dict[str, Keys] = {}
        self._held: dict[str, bytes] = {}
        self._masked = ""

    def advertise(self) -> Keys:
        """AdvertiseKeys; asked again before shares were given, the same keys."""
        if self._state != "share":
            self._go("advertise", "share")
        return Keys(keys.public_of(self._box_key), keys.public_of(self._mask_key))

    def share(self, roster: Mapping[str, Keys]) -> dict[str, bytes]:
        """ShareKeys: return a box of shares for every other member of U₁.

        Raises:
            H2TuneError: U₁ is too small, too large for t or for the sum not to wrap, lacks this member, has other keys
                of it, or has a key twice.
        """
        self._go("share", "mask")
        self._check_number(roster, "advertised keys")
        if roster.get(self.name) != Keys(keys.public_of(self._box_key), keys.public_of(self._mask_key)):
            raise refused(self.name, "its keys are not in the roster as it sent them")
        if self.threshold < threshold_needed(len(roster)):
            raise refused(
                self.name, f"the threshold {self.threshold} is below two thirds of {len(roster)} members"
            )
        check_keys(roster)
        self._roster = dict(roster)
        names = sorted(roster)
        parts = [shamir.split(secret, self.threshold, len(names)) for secret in (self._mask_key, self._seed)]
        shares = {name: parts[0][i] + parts[1][i] for i, name in enumerate(names)}
        self._held[self.name] = shares.pop(self.name)
        return {
            name: keys.seal(self._box_secret(name), content, self._about(self.name, name))
            for name, content in shares.items()
        }

    def mask(self, boxes: Mapping[str, bytes], values: Words) -> Words:
        """MaskedInputCollection: return the values under this member's masks; asked again, the same to the bit.

        Args:
            boxes: U₂'s boxes for this member, by sender.
            values: Integers modulo 2⁶⁴ (length,).

        Raises:
            H2TuneError: A sender is unknown, too few sent boxes, a box cannot be opened; or this was asked before with
                other boxes or values, and the difference would tell something.
        """
        if self._masked:
            self._go("reveal", "reveal")
        else:
            self._go("mask", "reveal")
        if set(boxes) - (self._roster.keys() - {self.name}):
            raise refused(self.name, "a box comes from nobody in the roster")
        self._check_number([self.name, *boxes], "sent shares")
        held = {
            sender: keys.unseal(self._box_secret(sender), box, self._about(sender, self.name))
            for sender, box in boxes.items()
        }
        masked = values + keys.expand(self._seed, values.size)
        for other in boxes:
            secret = keys.agree(self._mask_key, self._roster[other].mask, b"mask|" + self.session)
            masking.add(masked, keys.expand(secret, values.size), masking.pair_sign(self.name, other))
        digest = hashlib.sha256(masked.tobytes()).hexdigest()
        if self._masked not in ("", digest):
            raise refused(self.name, "it masked other values in this round before")
        self._masked = digest
        self._held |= held
        return masked

    def reveal(self, survivors: Collection[str]) -> Shares:
        """Unmasking: return shares of survivors' seeds and of the others' keys for masks; once, whoever asks.

        Raises:
            H2TuneError: U₃ is too small, lacks this member, or names one who sent no shares.
        """
        self._go("reveal", "over")
        alive = set(survivors)
        if self.name not in alive or alive - self._held.keys():
            raise refused(
                self.name, "the survivors are not those who sent shares, with this member among them"
            )
        self._check_number(alive, "survived")
        held, half = self._held, shamir.SIZE
        self._held, self._box_key, self._mask_key, self._seed = {}, b"", b"", b""
        return Shares(
            {name: share[:half] for name, share in held.items() if name not in alive},
            {name: share[half:] for name, share in held.items() if name in alive},
        )

    def state(self) -> dict[str, Any]:
        """Return all that this half is, its private keys among it, as JSON."""
        return {
            "name": self.name,
            "session": self.session.decode(),
            "threshold": self.threshold,
            "most": self.most,
            "state": self._state,
            "private": bytes_to_json({"box": self._box_key, "mask": self._mask_key, "seed": self._seed}),
            "roster": {name: keys_to_json(sent) for name, sent in self._roster.items()},
            "held": bytes_to_json(self._held),
            "masked": self._masked,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SecAggClient:
        """Return the half that `state` is of."""
        half = cls(state["name"], state["session"].encode(), threshold=state["threshold"], most=state["most"])
        private = bytes_from_json(state["private"])
        half._box_key, half._mask_key, half._seed = (private[key] for key in ("box", "mask", "seed"))
        half._state, half._masked = state["state"], state["masked"]
        half._roster, half._held = roster_from_json(state["roster"]), bytes_from_json(state["held"])
        return half

    def _box_secret(self, other: str) -> bytes:
        return keys.agree(self._box_key, self._roster[other].box, b"box|" + self.session)

    def _about(self, sender: str, owner: str) -> bytes:
        return b"|".join((self.session, sender.encode(), owner.encode()))  # no name has a '|'

    def _check_number(self, members: Collection[str], did: str) -> None:
        if not self.threshold <= len(members) <= self.most:
            raise refused(self.name, f"{len(members)} members {did}, not {self.threshold} to {self.most}")

    def _go(self, state: str, following: str) -> None:
        if self._state != state:
            raise refused(self.name, f"it was asked to {state} when it was to {self._state}")
        self._state = following
