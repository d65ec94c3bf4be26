"""A server that lies: what it learns together with k members, attack by attack; each refusal names what did not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import masking
from h2tune.functional.quorum import threshold_needed

pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from h2tune.federation.secagg import keys, shamir
from h2tune.federation.secagg.client import SecAggClient
from h2tune.federation.secagg.local import LocalSigner, local_signers
from h2tune.federation.secagg.progress import Secrets
from h2tune.federation.secagg.protocol import Keys, Shares
from h2tune.federation.secagg.signed import keys_statement

LENGTH = 20
SESSION = b"tiny|run|0|0"


@dataclass
class Session:
    """Members in a session, and a server that passes on what it likes.

    Args:
        count: n.
        threshold: t; by default the least that members accept.
        colluders: k: the last k members give the server all that they hold, and sign all that it asks for.
    """

    count: int = 4
    threshold: int = 0
    colluders: int = 0
    name: bytes = SESSION
    signers: Mapping[str, LocalSigner] | None = None

    def __post_init__(self):
        self.names = [f"m{i}" for i in range(self.count)]
        self.threshold = self.threshold or threshold_needed(self.count)
        self.signers = self.signers or local_signers(self.names)
        self.clients = {
            name: SecAggClient(
                name, self.name, threshold=self.threshold, clients=100, signer=self.signers[name]
            )
            for name in self.names
        }
        self.roster = {name: client.advertise() for name, client in self.clients.items()}
        self.honest = self.names[: self.count - self.colluders]
        draw = np.random.default_rng(0)
        self.words = {n: masking.quantise(draw.normal(size=LENGTH), 100) for n in self.names}
        self.masked: dict[str, masking.Words] = {}

    def masks(self) -> Session:
        """Run the protocol up to MaskedInputCollection as it should be."""
        boxes = {name: client.share(self.roster) for name, client in self.clients.items()}
        for name, client in self.clients.items():
            mine = {sender: sent[name] for sender, sent in boxes.items() if sender != name}
            self.masked[name] = client.mask(mine, self.words[name])
        # what colluders hold, before they are asked
        self.given = {name: dict(self.clients[name]._at.held) for name in self.names[len(self.honest) :]}
        return self

    def signatures(self, survivors: Collection[str], who: Iterable[str]) -> dict[str, str]:
        """Return the signatures of survivors by members; colluders sign every set."""
        return {name: self.member(name).agree(survivors) for name in who if name in survivors}

    def member(self, name: str) -> SecAggClient:
        """Return a member; a colluding one as it was before it signed."""
        client = self.clients[name]
        if name in self.honest:
            return client
        fresh = replace(client._at, state="agree", survivors=())
        return SecAggClient(
            name, self.name, threshold=self.threshold, clients=100, signer=client.signer, progress=fresh
        )

    def restored(self, of: str, kind: str, shares: Mapping[str, Shares]) -> bytes:
        """Return a secret from shares that were revealed and those of colluders."""
        index = {name: i for i, name in enumerate(sorted(self.names), 1)}
        parts = {index[n]: getattr(s, kind)[of] for n, s in shares.items() if of in getattr(s, kind)}
        half = slice(0, 32) if kind == "mask_keys" else slice(32, 64)
        parts |= {index[n]: held[of][half] for n, held in self.given.items()}
        return shamir.combine(parts, self.threshold)

    def values_of(self, one: str, shares: Mapping[str, Shares]) -> masking.Words:
        """Return a member's values from both of its secrets."""
        values = self.masked[one] - keys.expand(self.restored(one, "seeds", shares), LENGTH)
        self._take_pairs(values, one, set(self.names) - {one}, self.restored(one, "mask_keys", shares))
        return values

    def sum_of(self, members: Collection[str], shares: Mapping[str, Shares]) -> masking.Words:
        """Return the sum of members' values from their seeds and the keys of all others."""
        total = np.sum([self.masked[name] for name in members], axis=0, dtype=np.uint64)
        for name in members:
            masking.add(total, keys.expand(self.restored(name, "seeds", shares), LENGTH), -1)
        for other in set(self.names) - set(members):
            private = self.restored(other, "mask_keys", shares)
            for name in members:
                secret = keys.agree(private, self.roster[name].mask, b"mask|" + self.name)
                masking.add(total, keys.expand(secret, LENGTH), -masking.pair_sign(name, other))
        return total

    def _take_pairs(self, values: masking.Words, one: str, others: Collection[str], private: bytes) -> None:
        for other in others:
            secret = keys.agree(private, self.roster[other].mask, b"mask|" + self.name)
            masking.add(values, keys.expand(secret, LENGTH), -masking.pair_sign(one, other))


def own_keys(name: str, signer: LocalSigner, session: bytes = SESSION) -> Keys:
    """Return keys that the server made for a member's name, signed with a key of its own."""
    made = Secrets.new()
    box, mask = keys.public_of(made.box), keys.public_of(made.mask)
    return Keys(box, mask, signer.sign(keys_statement(session, 3, name, box, mask)))


def swapped(session: Session) -> dict[str, Keys]:
    return session.roster | {"m1": session.roster["m2"], "m2": session.roster["m1"]}


def replayed(session: Session) -> dict[str, Keys]:
    earlier = Session(name=b"tiny|run|0|1", signers=session.signers)
    return session.roster | {"m1": earlier.roster["m1"]}


def unsigned(session: Session) -> dict[str, Keys]:
    return session.roster | {"m1": replace(session.roster["m1"], signature="")}


def invented(session: Session) -> dict[str, Keys]:
    roster = {name: sent for name, sent in session.roster.items() if name != "m3"}
    return roster | {"x": own_keys("x", local_signers("x")["x"])}


def substituted(session: Session) -> dict[str, Keys]:
    """The server has made keys of a member that drops out, and so would know the masks of all with it."""
    return session.roster | {"m3": own_keys("m3", local_signers("x")["x"])}


def in_anothers_name(session: Session) -> dict[str, Keys]:
    """A member in league with the server signs keys in another's name."""
    return session.roster | {"m1": own_keys("m1", session.signers["m3"])}


def with_another_threshold(session: Session) -> dict[str, Keys]:
    other = Session(threshold=4, signers=session.signers)
    return session.roster | {"m1": other.roster["m1"]}


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (swapped, "'m1' did not sign these keys for this session"),
        (replayed, "'m1' did not sign these keys for this session"),
        (unsigned, "the keys of 'm1' are not signed"),
        (invented, "'x' is in the roster, and this member knows no key of it"),
        (substituted, "'m3' did not sign these keys for this session"),
        (in_anothers_name, "'m1' did not sign these keys for this session"),
        (with_another_threshold, "'m1' did not sign these keys for this session and threshold"),
    ],
)
def test_keys_that_a_member_did_not_sign_get_no_share(lie, reason):
    session = Session()
    roster = lie(session)
    with pytest.raises(H2TuneError, match=reason) as refusal:
        session.clients["m0"].share(roster)
    assert refusal.value.where == "secure aggregation, 'm0'"
    session.clients["m0"].share(session.roster)  # nothing left, so that the true ones still may


def test_different_survivors_for_different_members_reveal_nothing():
    session = Session(count=4).masks()
    one, two = ["m0", "m1", "m2", "m3"], ["m1", "m2", "m3"]
    signed = {name: session.clients[name].agree(one if name in ("m0", "m1") else two) for name in one}
    with pytest.raises(H2TuneError, match="2 clients signed the survivors, not 3"):
        session.clients["m0"].reveal({name: signed[name] for name in ("m0", "m1")})
    with pytest.raises(
        H2TuneError, match="'m2' did not sign these survivors for this session: m0, m1, m2, m3"
    ):
        session.clients["m0"].reveal({name: signed[name] for name in ("m0", "m1", "m2")})
    with pytest.raises(H2TuneError, match="'m0' is not among the survivors"):
        session.clients["m2"].reveal({name: signed[name] for name in ("m0", "m2", "m3")})
    with pytest.raises(H2TuneError, match="'m1' did not sign these survivors for this session: m1, m2, m3"):
        session.clients["m2"].reveal({name: signed[name] for name in ("m1", "m2", "m3")})


def test_a_signature_of_another_session_or_of_nobody_does_not_count():
    session = Session().masks()
    other = Session(name=b"tiny|run|0|1", signers=session.signers).masks()
    signed = session.signatures(session.names, session.names)
    for wrong in (other.clients["m1"].agree(session.names), "", signed["m2"]):
        with pytest.raises(H2TuneError, match="'m1' did not sign these survivors for this session"):
            session.clients["m0"].reveal(signed | {"m1": wrong})
    assert set(session.clients["m0"].reveal(signed).seeds) == set(session.names)


def test_fewer_survivors_than_the_threshold_are_not_signed():
    session = Session().masks()
    with pytest.raises(H2TuneError, match="2 clients survived, not 3"):
        session.clients["m0"].agree(["m0", "m1"])


def test_a_second_set_of_survivors_is_neither_signed_nor_revealed_also_after_a_restart():
    """Shares of one member's seed and of its key together would unmask its values."""
    session = Session().masks()
    client = session.clients["m0"]
    client.agree(session.names)
    restored = SecAggClient.from_state(client.state(), client.signer)
    for one in (client, restored):
        with pytest.raises(H2TuneError, match=r"signed other survivors .* m0, m1, m2, m3; now m0, m1, m2"):
            one.agree(["m0", "m1", "m2"])
    signed = session.signatures(session.names, session.names)
    restored.reveal(signed)
    again = SecAggClient.from_state(restored.state(), client.signer)
    for ask in (lambda: again.reveal(signed), lambda: again.agree(["m0", "m1", "m2"])):
        with pytest.raises(H2TuneError, match="in the state 'over'"):
            ask()
    assert not again.state()["progress"]["held"]


def reveals_of_two_sets(session: Session) -> dict[str, Shares]:
    """Ask some honest members with m0 among the survivors and the others without, as far as they answer."""
    rest, colluding = session.honest[1:], session.names[len(session.honest) :]
    needed = max(
        0, session.threshold - session.colluders - 1
    )  # for t signatures with those of m0 and colluders
    shares: dict[str, Shares] = {}
    for survivors, group in (
        (session.names, ["m0", *rest[:needed]]),
        (session.names[1:], rest[needed:]),
    ):
        signed = session.signatures(survivors, [*group, *colluding])
        for name in group:
            try:
                shares[name] = session.clients[name].reveal(signed)
            except H2TuneError as error:
                assert "signed the survivors" in str(error)
    return shares


@pytest.mark.parametrize(
    ("count", "colluders"), [(n, k) for n in (3, 4, 5, 6, 7, 9, 10) for k in range(n - 1)]
)
def test_a_server_with_k_members_unmasks_one_only_where_2t_is_at_most_n_plus_k(count, colluders):
    """Bonawitz et al. 2017, section 6.2: the protocol needs 2 t > n + k, and with less the attack works."""
    session = Session(count, colluders=colluders).masks()
    shares = reveals_of_two_sets(session)
    if 2 * session.threshold <= count + colluders:
        assert np.array_equal(session.values_of("m0", shares), session.words["m0"])
    else:
        with pytest.raises(H2TuneError, match="are needed"):
            session.values_of("m0", shares)


SETS = {"m0": "0123", "m1": "0124", "m2": "0125", "m3": "3012", "m4": "4012", "m5": "5012"}
"""Survivors that a server names to each of six members, to get the sum of the first three with t = 4."""


def test_without_the_consistency_check_a_server_would_get_a_sum_of_fewer_than_t(monkeypatch):
    for checked in (True, False):
        session = Session(count=6).masks()
        sets = {name: [f"m{i}" for i in numbers] for name, numbers in SETS.items()}
        signed = {name: session.clients[name].agree(sets[name]) for name in session.names}
        shares = {}
        if not checked:
            monkeypatch.setattr(LocalSigner, "is_signed", lambda *_: True)
        for name, client in session.clients.items():
            try:
                shares[name] = client.reveal({other: signed[other] for other in sets[name]})
            except H2TuneError as error:
                assert checked and "did not sign these survivors" in str(error)
        if checked:
            assert not shares
        else:
            wanted = np.sum([session.words[name] for name in ("m0", "m1", "m2")], axis=0, dtype=np.uint64)
            assert np.array_equal(session.sum_of(["m0", "m1", "m2"], shares), wanted)


def test_a_server_that_drops_members_still_gets_a_sum_of_t_or_more():
    """It may leave members out as if they had dropped out: what it gets is the sum of at least t."""
    session = Session(count=5).masks()
    few = session.names[: session.threshold]
    signed = session.signatures(few, few)
    shares = {name: session.clients[name].reveal(signed) for name in few}
    wanted = np.sum([session.words[name] for name in few], axis=0, dtype=np.uint64)
    assert np.array_equal(session.sum_of(few, shares), wanted)
    with pytest.raises(H2TuneError, match="are needed"):
        session.values_of("m0", shares)


def test_masks_tell_nothing_without_the_shares():
    """t - 1 colluders hold shares that fit every secret, so that a server that follows the protocol learns the sum."""
    session = Session(count=4, colluders=2).masks()
    with pytest.raises(H2TuneError, match="2 shares, 3 are needed"):
        session.restored("m0", "seeds", {})
    with pytest.raises(H2TuneError, match="2 shares, 3 are needed"):
        session.restored("m0", "mask_keys", {})
