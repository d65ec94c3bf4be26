"""The Gaussian mechanism: what one client can change, how much noise there is, and what ε that comes to."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.strategies import aggregate, h2tune
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from h2tune.errors import H2TuneError
from h2tune.federation import dp
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.messages import Enrolment, Update
from h2tune.functional.factors import Dense

SLOTS, SIZE, ROLES = 3, 4, ("attn.q", "mlp.up")


def source(seed: int) -> dp.Source:
    return np.random.default_rng(seed).bytes


def analytic_epsilon(multiplier: float, rounds: int, delta: float) -> float:
    """ε of T Gaussian rounds, which are one of σ / √T, by the exact δ(ε) of Balle and Wang (arXiv 1805.06530, (6))."""
    sigma = multiplier / math.sqrt(rounds)

    def surplus(e: float) -> float:
        second = math.exp(e + float(norm.logcdf(-0.5 / sigma - e * sigma)))
        return float(norm.cdf(0.5 / sigma - e * sigma)) - second - delta

    return float(brentq(surplus, 0, 1e4, xtol=1e-10)) if surplus(0) > 0 else 0.0


def strategy(ranks: dict[str, int], mechanism: dp.Mechanism | None, **changes) -> H2Tune:
    enrolments = [
        Enrolment(name, "tiny", depth, rank, 10, {role: tuple(range(depth)) for role in ROLES}, {})
        for depth, (name, rank) in enumerate(ranks.items(), 2)
    ]
    fixed = {"mask": "leading", "alignment": "depth", "weighting": "uniform"} | changes
    return h2tune(enrolments, shared_rank=SIZE, slots=SLOTS, mechanism=mechanism, **fixed)


def update(method: H2Tune, name: str, seed: int, scale: float = 1.0, round_number: int = 0) -> Update:
    """What a client would send: random increments, masks and relation."""
    draw = torch.Generator().manual_seed(seed)
    bare = strategy({n: e.rank for n, e in method.enrolments.items()}, None)
    tensors = {
        key: scale * torch.randn(shape, generator=draw)
        for key, (shape, _) in bare.upload_spec(name, 0).items()
    }
    return Update(name, round_number, 10, tensors)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_no_client_leaves_the_bound_whatever_it_learned(seed, scale, bound):
    learned = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * scale
    clipped = dp.clip(learned, bound)
    assert float(clipped.double().norm()) <= bound
    if float(learned.double().norm()) <= bound * (1 - 2 * dp.MARGIN):
        assert torch.equal(clipped, learned)
    else:  # scaled, not turned
        assert torch.allclose(clipped / clipped.norm(), learned / learned.norm(), atol=1e-5)


@pytest.mark.parametrize("value", [3e38, float("inf"), float("nan")])
def test_what_overflows_stays_in_the_bound(value):
    learned = torch.full((2, 2), value)
    assert float(dp.clip(learned, 1.0).double().norm()) <= 1


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.sampled_from(["one", "two", "three"]))
def test_one_client_changes_the_sum_by_at_most_the_clipping_norm(seed, scale, who):
    bound = 0.7
    method = strategy({"one": 4, "two": 2, "three": 3}, dp.Mechanism("server", bound, 1.0, 1e-5))
    sums = []
    for zero in (False, True):
        total = torch.zeros(SLOTS, len(ROLES), SIZE, SIZE, dtype=torch.float64)
        for i, name in enumerate(method.enrolments):
            told = update(method, name, seed + i, 0.0 if zero and name == who else scale)
            total += method.decode(told).learned.double()
        sums.append(total)
    assert float((sums[0] - sums[1]).norm()) <= bound * (1 + 1e-12)


def test_noise_is_gaussian_of_the_wanted_deviation():
    drawn = dp.gaussian((200_000,), 2.5, source(0))
    assert drawn.dtype == torch.float64
    assert float(drawn.std()) == pytest.approx(2.5, rel=0.01)
    assert abs(float(drawn.mean())) < 0.025
    for level in (0.01, 0.25, 0.75, 0.99):
        assert float(drawn.quantile(level)) == pytest.approx(2.5 * norm.ppf(level), abs=0.05)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_the_ends_of_the_source_give_finite_noise(byte):
    assert bool(torch.isfinite(dp.gaussian((3,), 1.0, lambda count: byte * count)).all())


def test_noise_comes_from_the_operating_system_and_is_never_the_same():
    assert not torch.equal(dp.gaussian((8,), 1.0), dp.gaussian((8,), 1.0))


def residual(method: H2Tune, updates: list[Update], clean: H2Tune, plain: list[Update]) -> torch.Tensor:
    """What the noise made of G, times the coverage: the noise on the sum."""
    state = method.start()
    noisy, still = aggregate(method, state, updates)[0], aggregate(clean, state, plain)[0]
    coverage = sum(Dense.of(clean.decode(u), clean.codec.roles_of(u.client), SIZE).coverage for u in plain)
    covered = coverage > 0
    return ((noisy["shared"] - still["shared"]) * coverage)[covered]


def test_the_servers_noise_on_the_sum_has_the_wanted_variance():
    mechanism = dp.Mechanism("server", 2.0, 1.0, 1e-5)
    method, clean = strategy({"one": 4, "two": 2}, mechanism), strategy({"one": 4, "two": 2}, None)
    updates = [
        update(method, name, seed, 0.01) for seed, name in enumerate(method.enrolments)
    ]  # below the bound
    noise = torch.cat([residual(method, updates, clean, updates) for _ in range(60)])
    assert float(noise.std()) == pytest.approx(2.0, rel=0.06)


def test_shares_but_one_add_up_to_the_whole_noise_on_every_entry():
    ranks = {"one": 4, "two": 2, "three": 3}
    mechanism = dp.Mechanism("member", 2.0, 1.0, 1e-5, shares=2)
    method, clean = strategy(ranks, mechanism), strategy(ranks, None)
    plain = [update(clean, name, seed, 0.01) for seed, name in enumerate(ranks)]

    def sent() -> list[Update]:
        return [Update(u.client, 0, 10, method.release(u.client, u.tensors)) for u in plain]

    noise = torch.stack([residual(method, sent(), clean, plain) for _ in range(150)])
    # also where the largest rank alone covers an entry
    assert float(noise.std()) == pytest.approx(2.0 * math.sqrt(3 / 2), rel=0.04)
    assert float(noise.std(0).min()) > 2.0 * 0.9


def test_a_members_message_is_what_the_server_expects_and_within_the_bound():
    mechanism = dp.Mechanism("member", 0.5, 1e-9, 1e-5)
    method = strategy({"one": 4, "two": 2}, mechanism)
    tensors = method.release("two", update(method, "two", 1, 1e4).tensors)
    spec = method.upload_spec("two", 0)
    assert {n: tuple(t.shape) for n, t in tensors.items()} == {n: shape for n, (shape, _) in spec.items()}
    assert sum(float(t.double().square().sum()) for t in tensors.values()) ** 0.5 == pytest.approx(
        0.5, rel=1e-4
    )


def test_a_role_with_too_few_shares_of_noise_is_held_back():
    mechanism = dp.Mechanism("member", 1.0, 1.0, 1e-5, shares=2)
    method = strategy({"one": 4, "two": 2, "three": 3}, mechanism)
    method.enrolments["two"] = Enrolment("two", "tiny", 2, 2, 10, {"attn.q": (0, 1)}, {})
    updates = []
    for seed, name in enumerate(method.enrolments):
        clean = update(method, name, seed).tensors
        kept = {n: t for n, t in clean.items() if n.split(".", 1)[1] in method.codec.roles_of(name)}
        updates.append(Update(name, 0, 10, method.release(name, kept)))
    following, facts = aggregate(method, method.start(), updates)
    assert facts["privacy"]["held_back"] == ["mlp.up"]
    assert bool(following["shared"][:, 0].any()) and not bool(following["shared"][:, 1].any())


@pytest.mark.parametrize(
    ("multiplier", "rounds", "delta"),
    [(1.0, 1, 1e-5), (5.0, 30, 1e-5), (0.5, 3, 1e-6), (20.0, 100, 1e-7), (0.1, 3, 1e-5), (100.0, 1, 1e-3)],
)
def test_the_accountant_agrees_with_the_analytic_gaussian(multiplier, rounds, delta):
    found = dp.epsilon(multiplier, rounds, delta)
    expected = analytic_epsilon(multiplier, rounds, delta)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found >= expected - 1e-6  # it may be too careful, never too bold


def test_epsilon_grows_with_rounds_and_falls_with_noise():
    assert all(a < b for a, b in pairwise(dp.epsilon(2.0, t, 1e-5) for t in (1, 2, 5, 20)))
    assert all(a > b for a, b in pairwise(dp.epsilon(s, 5, 1e-5) for s in (0.5, 1.0, 2.0, 8.0)))


@pytest.mark.parametrize(("target", "rounds"), [(1.0, 1), (3.0, 10), (0.3, 40)])
def test_the_multiplier_for_a_target_is_the_least_that_will_do(target, rounds):
    found = dp.multiplier_for(target, rounds, 1e-5)
    assert analytic_epsilon(found, rounds, 1e-5) <= target
    assert analytic_epsilon(found * 0.98, rounds, 1e-5) > target


def test_a_target_refuses_and_names_the_noise_that_will_do():
    mechanism = dp.Mechanism("server", 1.0, 1.0, 1e-5)
    with pytest.raises(H2TuneError, match="above target_epsilon 2") as refused:
        dp.check_budget(mechanism, 5, 2.0)
    enough = float(refused.value.remedy.split(" = ")[1].split()[0])
    dp.check_budget(dp.Mechanism("server", 1.0, enough, 1e-5), 5, 2.0)


def test_what_a_round_tells_holds_for_all_rounds_so_far_and_for_a_single_share():
    told = dp.spent(dp.Mechanism("member", 1.0, 4.0, 1e-5, shares=4), 3)
    assert told["epsilon"] == pytest.approx(analytic_epsilon(4.0, 3, 1e-5), rel=2e-3)
    assert told["epsilon_to_server"] == pytest.approx(analytic_epsilon(2.0, 3, 1e-5), rel=2e-3)
