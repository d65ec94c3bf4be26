"""Secure aggregation validates every message: each kind of bad one is refused, with its reason."""

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
from h2tune.federation.secagg.local import local_signers
from h2tune.federation.secagg.protocol import BOX, Keys, Shares
from h2tune.federation.secagg.server import SecAggServer
from h2tune.federation.secagg.signed import keys_statement

NAMES = ("a", "b", "c")
WORDS = np.arange(5, dtype=np.uint64)
ZERO_POINT = bytes(32)
"""A public key of low order, with which all private keys agree on the same secret."""


class Session:
    """Three clients and a server; `to` runs the protocol up to a round."""

    def __init__(self):
        self.signers = local_signers((*NAMES, "d"))
        self.server = SecAggServer(NAMES, b"s", threshold=2, keyring=self.signers["a"])
        self.clients = {
            name: SecAggClient(name, b"s", threshold=2, clients=4, signer=self.signers[name])
            for name in NAMES
        }
        self.advertised = {name: client.advertise() for name, client in self.clients.items()}

    def to(self, round_number: int) -> Session:
        if round_number >= 1:
            for name in NAMES:
                self.server.advertised(name, self.advertised[name])
            self.roster = self.server.roster()
        if round_number >= 2:
            for name in NAMES:
                self.server.shared(name, self.clients[name].share(self.roster))
            self.delivery = self.server.delivery()
        if round_number >= 3:
            for name in NAMES[:2]:  # "c" drops out after it sent shares
                self.server.masked(name, self.clients[name].mask(self.delivery[name], WORDS))
            self.alive = self.server.ask()
        if round_number >= 4:
            for name in NAMES[:2]:
                self.server.agreed(name, self.clients[name].agree(self.alive))
            self.signatures = self.server.agreement()
        return self

    def roster_with(self, **changes: Keys | None) -> dict[str, Keys]:
        return {name: sent for name, sent in {**self.roster, **changes}.items() if sent is not None}

    def with_low_order(self) -> dict[str, Keys]:
        """Return the roster with keys of low order that their client signed."""
        statement = keys_statement(b"s", 2, "b", ZERO_POINT, b"l" * 32)
        return self.roster_with(b=Keys(ZERO_POINT, b"l" * 32, self.signers["b"].sign(statement)))

    def box(self, owner: str, sender: str) -> bytes:
        return self.delivery[owner][sender]

    def mask(self, boxes: dict[str, bytes]) -> object:
        return self.clients["a"].mask(boxes, WORDS)


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0x10]) + data[1:]  # X25519 ignores a key's lowest three bits


NEW = Keys(b"k" * 32, b"l" * 32, "")
TO_SERVER: dict[str, tuple[int, Callable[[Session], object], str]] = {
    "keys of an unknown client": (0, lambda s: s.server.advertised("x", NEW), "not expected"),
    "keys that are too short": (0, lambda s: s.server.advertised("a", Keys(b"k", b"l" * 32, "")), "malformed"),
    "one key for two purposes": (0, lambda s: s.server.advertised("a", Keys(b"k" * 32, b"k" * 32, "")), "malformed"),
    "keys that are not signed": (0, lambda s: s.server.advertised("a", NEW), "not signed with its key"),
    "keys with another's signature": (
        0, lambda s: s.server.advertised("a", replace(s.advertised["a"], signature=s.advertised["b"].signature)),
        "not signed with its key",
    ),
    "boxes before keys": (0, lambda s: s.server.shared("a", {}), "not expected"),
    "keys after the round": (1, lambda s: s.server.advertised("a", NEW), "not expected"),
    "boxes for an unknown one": (1, lambda s: s.server.shared("a", {"b": b"0" * BOX, "x": b"0" * BOX}), "not one for"),
    "a box for the sender": (1, lambda s: s.server.shared("a", dict.fromkeys(NAMES, b"0" * BOX)), "not one for"),
    "a box missing": (1, lambda s: s.server.shared("a", {"b": b"0" * BOX}), "not one for"),
    "a box too long": (1, lambda s: s.server.shared("a", {"b": b"0" * BOX, "c": b"0" * (BOX + 1)}), "not one for"),
    "values of an unknown client": (2, lambda s: s.server.masked("x", WORDS), "not expected"),
    "values of another type": (2, lambda s: s.server.masked("a", WORDS.astype(float)), "not uint64"),
    "values of another shape": (2, lambda s: s.server.masked("a", WORDS.reshape(1, 5)), "not uint64"),
    "values too late": (3, lambda s: s.server.masked("c", WORDS), "not expected"),
    "a signature of a dropped client": (3, lambda s: s.server.agreed("c", ""), "not expected"),
    "survivors that are not signed": (3, lambda s: s.server.agreed("a", ""), "not signed with its key"),
    "shares before signatures": (3, lambda s: s.server.revealed("a", Shares({}, {})), "not expected"),
    "shares of a dropped client": (4, lambda s: s.server.revealed("c", Shares({}, {})), "not expected"),
    "no shares": (4, lambda s: s.server.revealed("a", Shares({}, {})), "not those"),
    "shares of a survivor's key": (
        4, lambda s: s.server.revealed("a", Shares(dict.fromkeys("bc", b"0" * 32), {"a": b"0" * 32})), "not those",
    ),
    "shares that are too short": (
        4, lambda s: s.server.revealed("a", Shares({"c": b""}, dict.fromkeys("ab", b"0" * 32))), "not those",
    ),
}  # fmt: skip
TO_CLIENT: dict[str, tuple[int, Callable[[Session], object], str]] = {
    "a roster that is too small": (1, lambda s: s.clients["a"].share(s.roster_with(b=None, c=None)), "1 clients"),
    "a roster without it": (1, lambda s: s.clients["a"].share(s.roster_with(a=None)), "not in the roster"),
    "a roster with other keys of it": (1, lambda s: s.clients["a"].share(s.roster_with(a=NEW)), "not in the roster"),
    "a roster with a key twice": (
        1, lambda s: s.clients["a"].share(s.roster_with(b=Keys(b"k" * 32, s.roster["c"].mask, ""))), "another's",
    ),
    "a roster with its own key as another's": (
        1, lambda s: s.clients["a"].share(s.roster_with(b=Keys(s.roster["a"].box, b"l" * 32, ""))), "another's",
    ),
    "a roster of more than there are": (1, lambda s: s.clients["a"].share(s.roster_with(d=NEW, e=NEW)), "5 clients"),
    "a roster too large for the threshold": (1, lambda s: s.clients["a"].share(s.roster_with(d=NEW)), "two thirds"),
    "a key of low order": (1, lambda s: s.clients["a"].share(s.with_low_order()), "public key is invalid"),
    "a box from an unknown sender": (2, lambda s: s.mask({"x": s.box("a", "b")}), "not in the roster"),
    "a box from itself": (2, lambda s: s.mask({"a": s.box("a", "b")}), "not in the roster"),
    "too few boxes": (2, lambda s: s.mask({}), "1 clients sent shares"),
    "an altered box": (2, lambda s: s.mask({"b": flipped(s.box("a", "b"))}), "was altered"),
    "a box for another": (2, lambda s: s.mask({"b": s.box("c", "b")}), "was altered"),
    "a box of another sender": (2, lambda s: s.mask({"b": s.box("a", "c")}), "was altered"),
    "its own box sent back": (2, lambda s: s.mask({"b": s.box("b", "a")}), "was altered"),
    "survivors without it": (3, lambda s: s.clients["a"].agree(["b", "c"]), "this client is not among them"),
    "survivors who sent no shares": (3, lambda s: s.clients["a"].agree(["a", "x"]), "'x' sent no shares"),
    "too few survivors": (3, lambda s: s.clients["a"].agree(["a"]), "1 clients survived"),
    "a survivor twice": (3, lambda s: s.clients["a"].agree(["a", "a"]), "1 clients survived"),
    "survivors before values": (2, lambda s: s.clients["a"].agree(["a", "b"]), "in the state 'mask'"),
    "a request for shares before survivors": (3, lambda s: s.clients["a"].reveal({}), "in the state 'agree'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*TO_SERVER, *TO_CLIENT])
def test_a_bad_message_is_refused(kind):
    round_number, send, reason = (TO_SERVER | TO_CLIENT)[kind]
    session = Session().to(round_number)
    with pytest.raises(H2TuneError, match=reason):
        send(session)


def test_other_values_or_boxes_under_the_same_masks_are_refused():
    """The difference of two vectors under the same masks is that of the values."""
    ready = Session().to(2)
    client, boxes = ready.clients["a"], ready.delivery["a"]
    first = client.mask(boxes, WORDS)
    assert np.array_equal(client.mask(boxes, WORDS), first)
    restored = SecAggClient.from_state(client.state(), client.signer)  # as after a restart
    assert np.array_equal(restored.mask(boxes, WORDS), first)
    for other in (client, restored):
        with pytest.raises(H2TuneError, match="masked other values"):
            other.mask(boxes, WORDS + np.uint64(1))
        with pytest.raises(H2TuneError, match="masked other values"):
            other.mask({"b": boxes["b"]}, WORDS)
    other = ready.clients["b"]
    other.mask(ready.delivery["b"], WORDS)
    restored.reveal({c.name: c.agree(["a", "b", "c"]) for c in (restored, other)})
    with pytest.raises(H2TuneError, match="in the state 'over'"):
        restored.mask(boxes, WORDS)
    assert not any(restored.state()["progress"]["private"].values())


def test_shares_that_do_not_fit_the_key_of_a_dropped_client_are_refused():
    ready = Session().to(4)
    for name in ready.alive:
        shares = ready.clients[name].reveal(ready.signatures)
        ready.server.revealed(name, replace(shares, mask_keys={"c": flipped(shares.mask_keys["c"])}))
    with pytest.raises(H2TuneError, match="do not fit the key"):
        ready.server.total()


def test_masks_differ_by_session_pair_and_purpose():
    one, two, three = (keys.new_private() for _ in range(3))
    public = keys.public_of(two)
    assert keys.agree(one, public, b"mask|s") == keys.agree(two, keys.public_of(one), b"mask|s")
    shared = {keys.agree(one, public, about) for about in (b"mask|s", b"box|s", b"mask|t")}
    shared |= {keys.agree(three, public, b"mask|s"), keys.agree(one, keys.public_of(three), b"mask|s")}
    assert len(shared) == 5
