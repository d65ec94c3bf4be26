"""Secure aggregation trusts no message: each kind of bad one is refused, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from h2tune.errors import H2TuneError

pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from h2tune.federation.secagg import keys
from h2tune.federation.secagg.client import SecAggClient
from h2tune.federation.secagg.protocol import BOX, Keys, Shares
from h2tune.federation.secagg.server import SecAggServer

NAMES = ("a", "b", "c")
WORDS = np.arange(5, dtype=np.uint64)
ZERO_POINT = bytes(32)
"""A public key with which everybody agrees on the same secret."""


class Party:
    """Three members and a server; `to` takes the protocol to a round."""

    def __init__(self):
        self.server = SecAggServer(NAMES, b"s", threshold=2)
        self.halves = {name: SecAggClient(name, b"s", threshold=2, most=4) for name in NAMES}
        self.advertised = {name: half.advertise() for name, half in self.halves.items()}

    def to(self, round_number: int) -> Party:
        if round_number >= 1:
            for name in NAMES:
                self.server.advertised(name, self.advertised[name])
            self.roster = self.server.roster()
        if round_number >= 2:
            for name in NAMES:
                self.server.shared(name, self.halves[name].share(self.roster))
            self.delivery = self.server.delivery()
        if round_number >= 3:
            for name in NAMES[:2]:  # "c" is lost after it sent shares
                self.server.masked(name, self.halves[name].mask(self.delivery[name], WORDS))
            self.alive = self.server.ask()
        return self

    def roster_with(self, **changes: Keys | None) -> dict[str, Keys]:
        return {name: sent for name, sent in {**self.roster, **changes}.items() if sent is not None}

    def box(self, owner: str, sender: str) -> bytes:
        return self.delivery[owner][sender]

    def mask(self, boxes: dict[str, bytes]) -> object:
        return self.halves["a"].mask(boxes, WORDS)


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0x10]) + data[1:]  # X25519 does not look at a key's lowest three bits


NEW = Keys(b"k" * 32, b"l" * 32)
TO_SERVER: dict[str, tuple[int, Callable[[Party], object], str]] = {
    "keys of a stranger": (0, lambda p: p.server.advertised("x", NEW), "not expected"),
    "keys that are too short": (0, lambda p: p.server.advertised("a", Keys(b"k", b"l" * 32)), "malformed"),
    "one key for two purposes": (0, lambda p: p.server.advertised("a", Keys(b"k" * 32, b"k" * 32)), "malformed"),
    "boxes before keys": (0, lambda p: p.server.shared("a", {}), "not expected"),
    "keys after the round": (1, lambda p: p.server.advertised("a", NEW), "not expected"),
    "boxes for a stranger": (1, lambda p: p.server.shared("a", {"b": b"0" * BOX, "x": b"0" * BOX}), "not one for"),
    "a box for oneself": (1, lambda p: p.server.shared("a", dict.fromkeys(NAMES, b"0" * BOX)), "not one for"),
    "a box missing": (1, lambda p: p.server.shared("a", {"b": b"0" * BOX}), "not one for"),
    "a box too long": (1, lambda p: p.server.shared("a", {"b": b"0" * BOX, "c": b"0" * (BOX + 1)}), "not one for"),
    "values of a stranger": (2, lambda p: p.server.masked("x", WORDS), "not expected"),
    "values of another type": (2, lambda p: p.server.masked("a", WORDS.astype(float)), "not uint64"),
    "values of another shape": (2, lambda p: p.server.masked("a", WORDS.reshape(1, 5)), "not uint64"),
    "values too late": (3, lambda p: p.server.masked("c", WORDS), "not expected"),
    "shares of one who is lost": (3, lambda p: p.server.revealed("c", Shares({}, {})), "not expected"),
    "no shares": (3, lambda p: p.server.revealed("a", Shares({}, {})), "not those"),
    "shares of a survivor's key": (
        3, lambda p: p.server.revealed("a", Shares(dict.fromkeys("bc", b"0" * 32), {"a": b"0" * 32})), "not those",
    ),
    "shares that are too short": (
        3, lambda p: p.server.revealed("a", Shares({"c": b""}, dict.fromkeys("ab", b"0" * 32))), "not those",
    ),
}  # fmt: skip
TO_MEMBER: dict[str, tuple[int, Callable[[Party], object], str]] = {
    "a roster that is too small": (1, lambda p: p.halves["a"].share(p.roster_with(b=None, c=None)), "1 members"),
    "a roster without it": (1, lambda p: p.halves["a"].share(p.roster_with(a=None)), "not in the roster"),
    "a roster with other keys of it": (1, lambda p: p.halves["a"].share(p.roster_with(a=NEW)), "not in the roster"),
    "a roster with a key twice": (
        1, lambda p: p.halves["a"].share(p.roster_with(b=Keys(b"k" * 32, p.roster["c"].mask))), "another's",
    ),
    "a roster with its own key as another's": (
        1, lambda p: p.halves["a"].share(p.roster_with(b=Keys(p.roster["a"].box, b"l" * 32))), "another's",
    ),
    "a roster of more than there are": (1, lambda p: p.halves["a"].share(p.roster_with(d=NEW, e=NEW)), "5 members"),
    "a roster too large for the threshold": (1, lambda p: p.halves["a"].share(p.roster_with(d=NEW)), "two thirds"),
    "a key that hides nothing": (
        1, lambda p: p.halves["a"].share(p.roster_with(b=Keys(ZERO_POINT, b"l" * 32))), "public key is none",
    ),
    "a box from a stranger": (2, lambda p: p.mask({"x": p.box("a", "b")}), "nobody in the roster"),
    "a box from itself": (2, lambda p: p.mask({"a": p.box("a", "b")}), "nobody in the roster"),
    "too few boxes": (2, lambda p: p.mask({}), "1 members sent shares"),
    "an altered box": (2, lambda p: p.mask({"b": flipped(p.box("a", "b"))}), "was altered"),
    "a box for another": (2, lambda p: p.mask({"b": p.box("c", "b")}), "was altered"),
    "a box of another sender": (2, lambda p: p.mask({"b": p.box("a", "c")}), "was altered"),
    "its own box sent back": (2, lambda p: p.mask({"b": p.box("b", "a")}), "was altered"),
    "survivors without it": (3, lambda p: p.halves["a"].reveal(["b", "c"]), "not those"),
    "survivors who sent no shares": (3, lambda p: p.halves["a"].reveal(["a", "x"]), "not those"),
    "too few survivors": (3, lambda p: p.halves["a"].reveal(["a"]), "1 members survived"),
    "survivors before values": (2, lambda p: p.halves["a"].reveal(["a", "b"]), "when it was to mask"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*TO_SERVER, *TO_MEMBER])
def test_a_bad_message_is_refused(kind):
    round_number, send, reason = (TO_SERVER | TO_MEMBER)[kind]
    party = Party().to(round_number)
    with pytest.raises(H2TuneError, match=reason):
        send(party)


def test_a_second_request_for_shares_with_other_survivors_is_refused():
    """Shares of one member's seed and of its key together would uncover its values."""
    ready = Party().to(3)
    assert ready.halves["a"].reveal(["a", "b"])
    with pytest.raises(H2TuneError, match="when it was to over"):
        ready.halves["a"].reveal(["a", "c"])


def test_other_values_or_boxes_under_the_same_masks_are_refused():
    """The difference of two masked vectors under the same masks is that of the values."""
    ready = Party().to(2)
    half, boxes = ready.halves["a"], ready.delivery["a"]
    first = half.mask(boxes, WORDS)
    assert np.array_equal(half.mask(boxes, WORDS), first)
    kept = SecAggClient.from_state(half.state())  # as after a restart
    assert np.array_equal(kept.mask(boxes, WORDS), first)
    for other in (half, kept):
        with pytest.raises(H2TuneError, match="masked other values"):
            other.mask(boxes, WORDS + np.uint64(1))
        with pytest.raises(H2TuneError, match="masked other values"):
            other.mask({"b": boxes["b"]}, WORDS)
    kept.reveal(["a", "b", "c"])
    with pytest.raises(H2TuneError, match="when it was to over"):
        kept.mask(boxes, WORDS)
    assert not any(kept.state()["private"].values())


def test_shares_that_do_not_fit_the_key_of_one_who_is_gone_are_refused():
    ready = Party().to(3)
    for name in ready.alive:
        shares = ready.halves[name].reveal(ready.alive)
        ready.server.revealed(name, replace(shares, mask_keys={"c": flipped(shares.mask_keys["c"])}))
    with pytest.raises(H2TuneError, match="do not fit the key"):
        ready.server.total()


def test_masks_differ_by_session_pair_and_purpose():
    one, two, three = (keys.new_private() for _ in range(3))
    public = keys.public_of(two)
    assert keys.agree(one, public, b"mask|s") == keys.agree(two, keys.public_of(one), b"mask|s")
    found = {keys.agree(one, public, about) for about in (b"mask|s", b"box|s", b"mask|t")}
    found |= {keys.agree(three, public, b"mask|s"), keys.agree(one, keys.public_of(three), b"mask|s")}
    assert len(found) == 5
