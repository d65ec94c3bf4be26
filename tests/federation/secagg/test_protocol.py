"""Secure aggregation: masks that cancel, secret sharing, and drop-outs between any two rounds of the protocol."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import masking, vector
from h2tune.functional import alignment
from h2tune.functional.aggregation import Sums
from h2tune.functional.factors import contribution
from h2tune.functional.masks import choose_mask

pytest.importorskip("cryptography", reason="pip install 'h2tune[secure]'")
pytest.importorskip("Crypto", reason="pip install 'h2tune[secure]'")

from h2tune.federation.secagg import keys, shamir
from h2tune.federation.secagg.client import SecAggClient
from h2tune.federation.secagg.local import local_signers
from h2tune.federation.secagg.server import SecAggServer
from h2tune.functional.quorum import threshold_needed

LENGTH = 50
ROLES = ("attn.q", "mlp.up")
values = st.lists(
    st.floats(-masking.RANGE, masking.RANGE, allow_subnormal=True), min_size=LENGTH, max_size=LENGTH
)


def vectors(names, seed=0):
    draw = np.random.default_rng(seed)
    return {name: masking.quantise(draw.normal(size=LENGTH), len(names)) for name in names}


def run(names, threshold, words, gone=(frozenset(),) * 5):
    """Run the protocol; `gone` are the clients that drop out before each of its five messages."""
    signers = local_signers(names)
    clients = {
        name: SecAggClient(name, b"session", threshold=threshold, clients=len(names), signer=signers[name])
        for name in names
    }
    server = SecAggServer(names, b"session", threshold=threshold)
    present = [name for name in names if name not in gone[0]]
    for name in present:
        server.advertised(name, clients[name].advertise())
    roster = server.roster()
    present = [name for name in present if name not in gone[1]]
    for name in present:
        server.shared(name, clients[name].share(roster))
    delivery = server.delivery()
    present = [name for name in present if name not in gone[2]]
    for name in present:
        server.masked(name, clients[name].mask(delivery[name], words[name]))
    survivors = server.ask()
    present = [name for name in present if name not in gone[3]]
    for name in present:
        server.agreed(name, clients[name].agree(survivors))
    signatures = server.agreement()
    for name in present:
        if name not in gone[4]:
            server.revealed(name, clients[name].reveal(signatures))
    return survivors, server.total()


@given(st.lists(values, min_size=1, max_size=4))
def test_the_sum_of_quantised_values_is_off_by_half_a_step_for_each(rows):
    rows = np.array(rows)
    total = np.sum([masking.quantise(row, len(rows)) for row in rows], axis=0, dtype=np.uint64)
    # the exact sum in integers: floats would hide the error that is looked for
    wanted = [sum(round(x / masking.step(len(rows))) for x in column) for column in rows.T]
    actual = total.view(np.int64).tolist()
    # a quotient above 2⁵³ is rounded to float64
    slack = [
        len(rows) * (0.5 + max(abs(x) for x in column) / masking.step(len(rows)) * 2.0**-52)
        for column in rows.T
    ]
    assert all(abs(f - w) <= s for f, w, s in zip(actual, wanted, slack, strict=True))
    back = masking.dequantise(total, len(rows), len(rows))
    bound = len(rows) * masking.step(len(rows)) / 2 + 1e-15 * np.abs(rows).sum(axis=0)
    assert (np.abs(back - rows.sum(axis=0)) <= bound).all()


@given(st.integers(1, 100), st.sampled_from([1, -1]))
def test_all_clients_at_the_range_do_not_wrap(clients, sign):
    one = masking.quantise(np.full(3, sign * masking.RANGE), clients)
    total = np.sum([one] * clients, axis=0, dtype=np.uint64)
    assert np.allclose(masking.dequantise(total, clients, clients), sign * masking.RANGE * clients)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, masking.RANGE * 1.001])
def test_a_value_beyond_the_range_is_refused_and_not_clipped(wrong):
    with pytest.raises(H2TuneError, match="beyond 128"):
        masking.quantise(np.array([0.0, wrong]), 3)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_sum_is_exact_whoever_drops_out_while_enough_remain(data):
    count = data.draw(st.integers(3, 7))
    names = [f"m{i}" for i in range(count)]
    threshold = data.draw(st.integers(threshold_needed(count), count))
    lost = data.draw(st.permutations(names))[: data.draw(st.integers(0, count - threshold))]
    when = {name: data.draw(st.integers(0, 4)) for name in lost}
    gone = tuple(frozenset(name for name in lost if when[name] == stage) for stage in range(5))
    words = vectors(names, seed=count)
    survivors, total = run(names, threshold, words, gone)
    assert survivors == [name for name in names if when.get(name, 3) >= 3]
    wanted = np.sum([words[name] for name in survivors], axis=0, dtype=np.uint64)
    assert np.array_equal(total, wanted)  # to the bit: masks leave nothing behind


@pytest.mark.parametrize("stage", range(5))
def test_fewer_than_the_threshold_end_the_round_with_a_reason(stage):
    names = ["a", "b", "c", "d"]
    gone = tuple(frozenset({"a", "b"}) if i == stage else frozenset() for i in range(5))
    with pytest.raises(H2TuneError, match=r"\b2 clients .*3 are needed"):
        run(names, 3, vectors(names), gone)


def masked_by_seeds(plain, seed):
    """Return a masked vector of one client among three, under fixed seeds."""
    seeds = [seed * 3 + i for i in range(3)]
    own, one, other = (keys.expand(s.to_bytes(32, "big"), plain.size) for s in seeds)
    out = plain + own
    masking.add(out, one, 1)
    masking.add(out, other, -1)
    return out


def test_a_masked_vector_looks_like_noise_whatever_is_in_it():
    plain = masking.quantise(np.full(40_000, 0.125), 3)  # far from noise: 40,000 times the same
    assert chisquare(np.bincount(plain.view(np.uint8), minlength=256)).pvalue < 1e-9
    pvalues = [
        chisquare(np.bincount(masked_by_seeds(plain, seed).view(np.uint8), minlength=256)).pvalue
        for seed in range(1, 21)
    ]
    assert min(pvalues) > 1e-4 and max(pvalues) > 0.5
    # every bit of a word is fair, and there is no correlation with the values under the mask
    draw = masking.quantise(np.random.default_rng(0).normal(size=40_000), 3)
    out = masked_by_seeds(draw, 99)
    for bit in range(64):
        assert abs(float((out >> np.uint64(bit) & np.uint64(1)).mean()) - 0.5) < 0.012
    correlation = np.corrcoef(out.view(np.int64).astype(float), draw.view(np.int64).astype(float))[0, 1]
    assert abs(correlation) < 0.02


def test_a_sum_that_was_not_unmasked_is_refused():
    draw = np.random.default_rng(1).integers(0, 2**64, size=64, dtype=np.uint64)
    with pytest.raises(H2TuneError, match="no sum of the clients' values"):
        masking.dequantise(draw, 3, 3)


def test_shamir_by_hand():
    """The line f(x) = 7 + 5 x over GF(2¹²⁸), the polynomials over GF(2) modulo X¹²⁸ + X⁷ + X² + X + 1.

    f(1) = 7 ⊕ 5 = 2, f(2) = 7 ⊕ 10 = 13, f(3) = 7 ⊕ 15 = 8; and where it has to be reduced, 5 · X¹²⁷ = X¹²⁷ + X¹²⁹ =
    X¹²⁷ + X⁸ + X³ + X² + X, so that f(X¹²⁷) = 7 ⊕ that.
    """
    share = {x: 2 * y.to_bytes(16, "big") for x, y in {1: 2, 2: 13, 3: 7 ^ 15}.items()}
    far = (1 << 127) ^ 0b100001110 ^ 7
    for pair in itertools.combinations(share, 2):
        assert shamir.combine({x: share[x] for x in pair}, 2) == 2 * (7).to_bytes(16, "big")
    both = {1: share[1], 1 << 127: 2 * far.to_bytes(16, "big")}
    assert shamir.combine(both, 2) == 2 * (7).to_bytes(16, "big")


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 5), st.integers(0, 3), st.randoms())
def test_any_threshold_shares_restore_the_secret_and_fewer_are_refused(secret, threshold, more, draw):
    shares = dict(enumerate(shamir.split(secret, threshold, threshold + more), 1))
    some = draw.sample(sorted(shares), threshold)
    assert shamir.combine({i: shares[i] for i in some}, threshold) == secret
    assert shamir.combine(shares, threshold) == secret
    with pytest.raises(H2TuneError, match="are needed"):
        shamir.combine({i: shares[i] for i in some[1:]}, threshold)


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """Two shares of three: for any secret there is a third share with which they give that secret."""
    one, two, _ = shamir.split(b"s" * 32, 3, 3)
    secrets = {shamir.combine({1: one, 2: two, 3: bytes([last]) * 32}, 3) for last in range(64)}
    assert len(secrets) == 64  # the third share decides: each of its values gives another secret


def client(depth, rank, size, seed):
    """Return random increments and masks of a client with all roles."""
    draw = torch.Generator().manual_seed(seed)
    places = [(block, role) for block in range(depth) for role in ROLES]
    increments = {place: torch.randn(rank, rank, generator=draw) for place in places}
    masks = {p: choose_mask(torch.randn(size, size, generator=draw), rank, "entry") for p in places}
    return increments, masks


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 5), st.integers(0, 2**31), st.integers(0, 2))
def test_sums_under_masks_give_the_step_of_equation_5(count, seed, lost):
    """From factors with learned relations of tiny weights to G: equal to float32's rounding."""
    slots, size = 3, 3
    names = [f"m{i}" for i in range(count)]
    lost = min(lost, count - threshold_needed(count))
    packed, plain = {}, Sums((slots, len(ROLES), size, size))
    for i, name in enumerate(names):
        depth, rank = 1 + (seed + i) % 4, 1 + (seed + i) % size
        logits = 12 * torch.randn(slots, depth, generator=torch.Generator().manual_seed(seed + i))
        parts = contribution(*client(depth, rank, size, seed + i), alignment.relation(logits), ROLES, size)
        packed[name] = vector.pack(*parts, range(len(ROLES)), len(ROLES), count)
        if i >= lost:
            plain.add(*parts, 1.0, range(len(ROLES)))
    words = {name: vector.words_of(p).ravel() for name, p in packed.items()}
    gone = (frozenset(), frozenset(), frozenset(names[:lost]), frozenset(), frozenset())
    _, total = run(names, threshold_needed(count), words, gone)
    sums = Sums((slots, len(ROLES), size, size))
    summed = vector.unpack(vector.tensor_of(total).reshape(packed["m0"].shape), count, count - lost)
    sums.add(*summed, 1.0, range(len(ROLES)))
    start = torch.zeros(slots, len(ROLES), size, size)
    error = (count * masking.step(count)) / sums.coverage.clamp(min=alignment.TINY)
    wanted = plain.step(start)
    assert bool(((sums.step(start) - wanted).abs() <= 1e-5 * wanted.abs() + 1e-6 + 5 * error).all())
