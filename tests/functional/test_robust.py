"""Robust forms of equation (5): what hostile clients can and cannot do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from h2tune.errors import H2TuneError
from h2tune.functional import robust
from h2tune.functional.aggregation import Sums
from h2tune.functional.estimators import COVERED
from h2tune.functional.quorum import updates_needed

RULES = ("clip", "median", "trimmed_mean", "nnm", "krum")
unhurried = settings(deadline=None, max_examples=60)
"""On a busy machine a single example may take longer than Hypothesis allows by default."""
SHAPE = (2, 2, 3, 3)
"""D, roles, R, R."""
seeds = st.integers(0, 2**31)
rules = st.sampled_from(RULES)
hostiles = st.integers(0, 3)
extremes = st.sampled_from([1e30, -1e30, 3.4e38, -3.4e38, 1e-30, 0.0, -1.0, 7.0])


def clients(count: int, seed: int, *, thin: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return N and C: values times coverages of 0 (with probability `thin`) or 0.1 to 1.1."""
    draw = torch.Generator().manual_seed(seed)
    coverage = COVERED + torch.rand(count, *SHAPE, generator=draw)
    coverage *= torch.rand(count, *SHAPE, generator=draw) >= thin
    return torch.randn(count, *SHAPE, generator=draw) * coverage, coverage


def plain(learned: torch.Tensor, coverage: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    sums = Sums(shared.shape)
    for one, covered in zip(learned, coverage, strict=True):
        sums.add(one, covered, 1.0, range(SHAPE[1]))
    return sums.step(shared)


@unhurried
@given(rules, hostiles, seeds, st.integers(0, 4))
def test_the_order_of_clients_means_nothing(rule, hostile, seed, more):
    learned, coverage = clients(updates_needed(rule, hostile) + more, seed)
    order = torch.randperm(len(learned), generator=torch.Generator().manual_seed(seed))
    one = robust.step(rule, learned, coverage, hostile)
    other = robust.step(rule, learned[order], coverage[order], hostile)
    assert torch.equal(one.decided, other.decided)
    assert torch.allclose(one.change, other.change, atol=1e-6)
    assert [one.kept[i] for i in order.tolist()] == list(other.kept)


@unhurried
@given(rules, hostiles, seeds, st.integers(0, 4))
def test_identical_clients_give_what_the_mean_gives(rule, hostile, seed, more):
    learned, coverage = (t.expand(updates_needed(rule, hostile) + more, *SHAPE) for t in clients(1, seed))
    shared = clients(1, seed + 1)[0][0]
    after = robust.step(rule, learned, coverage, hostile).apply(shared)
    assert torch.allclose(after, plain(learned, coverage, shared), atol=1e-5)


@unhurried
@given(st.sampled_from(["median", "trimmed_mean"]), st.integers(1, 3), seeds, st.data())
def test_hostile_clients_cannot_leave_the_range_of_the_honest(rule, hostile, seed, data):
    learned, coverage = clients(2 * hostile + 1 + data.draw(st.integers(0, 4)), seed)
    honest, covers = learned[hostile:] / coverage[hostile:].clamp(min=COVERED), coverage[hostile:] > 0
    for i in range(hostile):  # they claim any coverage, in part far above one block
        coverage[i] = data.draw(st.sampled_from([0.0, 0.1, 1.0, 30.0]))
        learned[i] = data.draw(extremes)
    step = robust.step(rule, learned, coverage, hostile)
    low = torch.where(covers, honest, torch.inf).amin(0)
    high = torch.where(covers, honest, -torch.inf).amax(0)
    margin = 1e-5  # N / C is not V to the bit
    inside = (step.change >= low - margin) & (step.change <= high + margin)
    assert bool(inside[step.decided].all())


@unhurried
@given(rules, st.integers(1, 3), seeds, st.data())
def test_what_fewer_than_2f_plus_1_cover_stays_to_the_bit(rule, hostile, seed, data):
    learned, coverage = clients(updates_needed(rule, hostile) + 1, seed)
    learned[0], coverage[0] = data.draw(extremes), 1.0
    number = data.draw(st.integers(0, 2 * hostile))
    learned[number:, 0], coverage[number:, 0] = 0, 0  # slot 0 is covered by too few, whatever they send
    shared = clients(1, seed + 1)[0][0]
    step = robust.step(rule, learned, coverage, hostile)
    after = step.apply(shared)
    assert torch.equal(after[0], shared[0])
    assert torch.equal(after[~step.decided], shared[~step.decided])


@unhurried
@given(rules, seeds, st.integers(0, 2))  # krum, nnm: more silent ones, and nobody has n − f neighbours
def test_who_does_not_cover_an_entry_has_no_say_in_it(rule, seed, absent):
    """Zeros of clients that lack a role bias neither a median nor a mean; they are no clients of that role."""
    learned, coverage = clients(7, seed, thin=0.0)
    silent = torch.zeros(absent, *SHAPE)
    bound = 1.0  # the median of the norms would know of the silent ones
    alone = robust.step(rule, learned, coverage, 1, bound if rule == "clip" else None)
    padded = robust.step(
        rule,
        torch.cat([learned, silent]),
        torch.cat([coverage, silent]),
        1,
        bound if rule == "clip" else None,
    )
    if rule == "krum":  # more clients, more neighbours: another choice; but the silent are never kept
        assert not any(padded.kept[7:])
    elif rule != "nnm":
        assert torch.equal(alone.change, padded.change)
    assert torch.equal(alone.decided, padded.decided)


@unhurried
@given(st.sampled_from(["trimmed_mean", "nnm", "krum"]), seeds, st.integers(3, 6))
def test_without_hostile_clients_it_is_equation_5(rule, seed, count):
    learned, coverage = clients(count, seed)
    learned, coverage = learned / coverage.clamp(min=1.0), coverage.clamp(max=1.0)
    shared = clients(1, seed + 1)[0][0]
    after = robust.step(rule, learned, coverage, 0).apply(shared)
    assert torch.allclose(after, plain(learned, coverage, shared), atol=1e-5)


@unhurried
@given(seeds, st.integers(1, 3), extremes)
def test_krum_keeps_no_outlier(seed, hostile, extreme):
    learned, coverage = clients(2 * hostile + 3, seed)
    learned[:hostile] = 1e3 + learned[:hostile] * abs(extreme)
    learned[:hostile], coverage[:hostile] = learned[:hostile].clamp(-3e38, 3e38), 1.0
    assert not any(robust.step("krum", learned, coverage, hostile).kept[:hostile])


@unhurried
@given(seeds, st.integers(1, 3), st.integers(0, 3), st.sampled_from([1e3, -1e3, 1e30]))
def test_mixing_with_neighbours_leaves_outliers_out(seed, hostile, more, extreme):
    learned, coverage = clients(2 * hostile + 1 + more, seed, thin=0.0)
    learned[:hostile] = extreme * coverage[:hostile]
    honest = learned[hostile:] / coverage[hostile:]
    change = robust.step("nnm", learned, coverage, hostile).change
    assert bool(((change >= honest.amin(0) - 1e-5) & (change <= honest.amax(0) + 1e-5)).all())


def test_mixing_with_neighbours_by_hand():
    """Five clients, one hostile: each is replaced by the mean of its four nearest, then one is cut at either end."""
    values = torch.tensor([1.0, 2.0, 3.0, 5.0, 100.0])
    step = robust.step("nnm", values.view(5, 1, 1, 1, 1), torch.ones(5, 1, 1, 1, 1), 1)
    mixtures = [(1 + 2 + 3 + 5) / 4] * 4 + [(2 + 3 + 5 + 100) / 4]
    assert float(step.change) == pytest.approx(sum(sorted(mixtures)[1:-1]) / 3) == 2.75


@unhurried
@given(seeds, st.floats(1e-3, 1e3), extremes)
def test_clipping_bounds_the_norm(seed, bound, extreme):
    learned, coverage = clients(5, seed, thin=0.0)
    learned[0] = extreme
    step = robust.step("clip", learned, coverage.clamp(max=1.0), 2, bound)
    assert (
        float(step.change.norm()) <= bound * 5 * 1.001
    )  # a mean by voices of at least 0.1 can stretch, not break


def test_a_median_by_hand():
    values = torch.tensor([[1.0, 5.0], [2.0, 0.0], [9.0, 7.0], [4.0, 0.0]])
    coverage = torch.tensor([[1.0, 1.0], [0.5, 0.0], [1.0, 2.0], [1.0, 0.05]]).view(4, 1, 2, 1, 1)
    learned = values.view(4, 1, 2, 1, 1) * coverage
    step = robust.step("median", learned, coverage, 1)
    assert step.change.flatten().tolist() == [3.0, 0.0]
    assert step.decided.flatten().tolist() == [
        True,
        False,
    ]  # two of four cover the second; 0.05 is no coverage
    assert robust.step("median", learned, coverage, 0).change.flatten().tolist() == [
        3.0,
        6.0,
    ]


@pytest.mark.parametrize(
    ("rule", "hostile", "least"), [("median", 3, 7), ("nnm", 2, 5), ("krum", 3, 9), ("clip", 0, 1)]
)
def test_too_few_clients_are_refused(rule, hostile, least):
    assert updates_needed(rule, hostile) == least
    learned, coverage = clients(least, 0)
    robust.step(rule, learned, coverage, hostile)
    if least > 1:
        with pytest.raises(H2TuneError, match=f"needs {least} updates, not {least - 1}"):
            robust.step(rule, learned[1:], coverage[1:], hostile)
