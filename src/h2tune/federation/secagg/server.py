"""The server's half of secure aggregation; `protocol` names the rounds and symbols."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import keys, masking, shamir
from h2tune.federation.secagg.masking import Words
from h2tune.federation.secagg.protocol import BOX, Keys, Shares, check_keys, refused


class SecAggServer:
    """The server's half: takes in each member's message of a round, or refuses it; who sends none has dropped out.

    Args:
        members: Who may take part.
        session: As the members'.
        threshold: t, as the members'.
    """

    def __init__(self, members: Iterable[str], session: bytes, *, threshold: int) -> None:
        self.members, self.session = set(members), session
        self.threshold = threshold
        self.keys: dict[str, Keys] = {}
        self.boxes: dict[str, dict[str, bytes]] = {}
        self.survivors: set[str] = set()
        self.shares: dict[str, Shares] = {}
        self._state = "advertised"
        self._sum: Words = np.zeros(0, dtype=np.uint64)

    def advertised(self, member: str, sent: Keys) -> None:
        """Take in a member's keys (AdvertiseKeys)."""
        self._expect("advertised", member, self.members, self.keys)
        check_keys({**self.keys, member: sent})
        self.keys[member] = sent

    def roster(self) -> dict[str, Keys]:
        """Return U₁'s keys, for all of U₁."""
        self._go("advertised", "shared", self.keys)
        return dict(self.keys)

    def shared(self, member: str, boxes: Mapping[str, bytes]) -> None:
        """Take in a member's boxes (ShareKeys)."""
        self._expect("shared", member, self.keys, self.boxes)
        if boxes.keys() != self.keys.keys() - {member} or any(len(box) != BOX for box in boxes.values()):
            raise refused(member, "its boxes are not one for each other member")
        self.boxes[member] = dict(boxes)

    def delivery(self) -> dict[str, dict[str, bytes]]:
        """Return U₂'s boxes by owner and sender."""
        self._go("shared", "masked", self.boxes)
        return {
            owner: {s: sent[owner] for s, sent in self.boxes.items() if s != owner} for owner in self.boxes
        }

    def masked(self, member: str, values: Words) -> None:
        """Add a member's masked values to the sum (MaskedInputCollection)."""
        self._expect("masked", member, self.boxes, self.survivors)
        expected = self._sum.shape if self.survivors else (values.size,)
        if values.dtype != np.uint64 or values.shape != expected:
            raise refused(member, f"its values are {values.dtype} {values.shape}, not uint64 {expected}")
        if self.survivors:
            masking.add(self._sum, values, 1)
        else:
            self._sum = values.copy()
        self.survivors.add(member)

    def ask(self) -> list[str]:
        """Return U₃, for all of U₃."""
        self._go("masked", "revealed", self.survivors)
        return sorted(self.survivors)

    def revealed(self, member: str, shares: Shares) -> None:
        """Take in a member's shares (Unmasking)."""
        self._expect("revealed", member, self.survivors, self.shares)
        right = (
            shares.seeds.keys() == self.survivors
            and shares.mask_keys.keys() == self.boxes.keys() - self.survivors
        )
        sizes = {len(share) for share in (*shares.seeds.values(), *shares.mask_keys.values())}
        if not right or sizes != {shamir.SIZE}:
            raise refused(member, "its shares are not those that were asked for")
        self.shares[member] = shares

    def total(self) -> Words:
        """Return the sum of the survivors' values modulo 2⁶⁴: their sum with all masks taken off.

        Raises:
            H2TuneError: Fewer than t members revealed shares, or the shares of one who is gone do not fit its key.
        """
        self._go("revealed", "over", self.shares)
        total, length = self._sum, self._sum.size
        index = {name: i for i, name in enumerate(sorted(self.keys), 1)}
        for name in sorted(self.survivors):
            seed = shamir.combine({index[m]: s.seeds[name] for m, s in self.shares.items()}, self.threshold)
            masking.add(total, keys.expand(seed, length), -1)
        for gone in sorted(self.boxes.keys() - self.survivors):
            parts = {index[m]: s.mask_keys[gone] for m, s in self.shares.items()}
            private = shamir.combine(parts, self.threshold)
            if keys.public_of(private) != self.keys[gone].mask:
                raise refused(gone, "the shares of its key do not fit the key it advertised")
            for name in self.survivors:
                secret = keys.agree(private, self.keys[name].mask, b"mask|" + self.session)
                masking.add(total, keys.expand(secret, length), -masking.pair_sign(name, gone))
        return total

    def bytes_up(self) -> int:
        """Return the most bytes that a member sent besides its values: keys, boxes and shares."""
        return 2 * keys.SIZE + (len(self.keys) - 1) * BOX + len(self.boxes) * shamir.SIZE

    def _expect(self, state: str, member: str, known: Collection[str], done: Collection[str]) -> None:
        if self._state != state or member not in known or member in done:
            raise refused(member, f"a message of '{state}' is not expected of it")

    def _go(self, state: str, following: str, there: Collection[str]) -> None:
        if self._state != state or len(there) < self.threshold:
            what = f"{len(there)} members {state}, {self.threshold} are needed"
            raise H2TuneError(
                what if self._state == state else f"'{state}' is over", where="secure aggregation"
            )
        self._state = following
