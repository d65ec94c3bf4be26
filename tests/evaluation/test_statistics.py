from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from h2tune.evaluation.statistics import (
    bootstrap_interval,
    crossed_interval,
    differences,
    holm,
    mean_interval,
    paired_t_p,
    sign_flip_p,
)

FIVE = np.array([0.02, -0.01, 0.03, 0.05, 0.01])


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_differences_are_paired() -> None:
    assert differences([3, 5], [1, 7]).tolist() == [2, -2]
    with pytest.raises(ValueError, match="the same shape"):
        differences([1, 2], [1])


def test_t_interval_by_hand_and_by_scipy() -> None:
    # 1, 2, 3: mean 2, standard error 1/√3, t(0.975, 2) = 4.302653
    interval = mean_interval([1, 2, 3])
    assert interval == pytest.approx((2, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6)
    reference = stats.ttest_1samp(FIVE, 0).confidence_interval(0.9)
    assert mean_interval(FIVE, level=0.9)[1:] == pytest.approx((reference.low, reference.high))


def test_one_value_has_an_infinite_interval() -> None:
    assert mean_interval([0.3]) == (0.3, -math.inf, math.inf)
    assert bootstrap_interval([0.3], rng=generator()) == (0.3, -math.inf, math.inf)
    assert paired_t_p([0.3]) == 1
    assert sign_flip_p([0.3]) == 1


def test_bootstrap_of_few_values_is_exact() -> None:
    means = [np.mean(drawn) for drawn in itertools.product(FIVE, repeat=5)]
    expected = (FIVE.mean(), np.quantile(means, 0.025), np.quantile(means, 0.975))
    assert bootstrap_interval(FIVE, rng=generator()) == pytest.approx(expected)


def test_bootstrap_agrees_with_scipy() -> None:
    sample = generator().gamma(2.0, size=30)
    ours = bootstrap_interval(sample, rng=generator(), resamples=20_000)
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=20_000, method="percentile", rng=generator())
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)


def test_resampling_is_seeded_and_uses_no_global_state() -> None:
    sample = generator().normal(size=(3, 40))
    for interval in (
        lambda rng: bootstrap_interval(sample[0], rng=rng, resamples=200),
        lambda rng: crossed_interval(sample, rng=rng, resamples=200),
    ):
        assert interval(generator()) == interval(generator())
        assert interval(generator()) != interval(np.random.default_rng(8))


def test_crossed_interval_adds_the_variance_of_seeds_and_of_examples() -> None:
    rng = generator()
    seeds, examples = 40, 300
    table = rng.normal(size=(seeds, 1)) + 3 * rng.normal(size=(1, examples))
    interval = crossed_interval(table, rng=rng, resamples=4000)
    # Additive effects: the variance of the mean is the sum of both, without interaction.
    error = math.sqrt(table.mean(1).var() / seeds + table.mean(0).var() / examples)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert interval.mean == pytest.approx(table.mean())


def test_crossed_interval_of_one_seed_is_that_of_its_examples() -> None:
    row = generator().integers(0, 2, size=200).astype(float)
    crossed = crossed_interval(row[None], rng=generator(), resamples=4000)
    plain = bootstrap_interval(row, rng=generator(), resamples=4000)
    assert crossed[1:] == pytest.approx(plain[1:], abs=0.015)


def test_crossed_interval_needs_a_table() -> None:
    for values in ([1.0], [[]], [[math.nan]]):
        with pytest.raises(ValueError, match="seeds, examples"):
            crossed_interval(values, rng=generator())


def test_sign_flips_by_hand() -> None:
    # 1, 2, 3: of 8 signed sums, 6 and −6 are as far from 0 as 6; of 1, 2, −3 all are.
    assert sign_flip_p([1, 2, 3]) == 2 / 8
    assert sign_flip_p([1, 2, -3]) == 1
    # 4, 1, −1: sums ±4 (twice each), ±6, ±2; six of eight reach 4.
    assert sign_flip_p([4, 1, -1]) == 6 / 8
    assert sign_flip_p([0.0, 0.0]) == 1


def test_five_seeds_cannot_reach_five_per_cent() -> None:
    assert sign_flip_p([10.0, 11.0, 9.0, 10.5, 9.5]) == 0.0625
    assert paired_t_p([10.0, 11.0, 9.0, 10.5, 9.5]) < 0.001


@pytest.mark.parametrize("count", [5, 9])
def test_sign_flips_agree_with_scipy(count: int) -> None:
    left, right = generator().normal(0.4, 1, count), generator().normal(0, 1, count)[::-1]
    reference = stats.permutation_test(
        (left, right), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences(left, right)) == pytest.approx(reference.pvalue)


def test_rounding_does_not_break_ties() -> None:
    # 0.1 + 0.2 − 0.3 is not 0 in binary, nor are its permutations alike.
    assert sign_flip_p([0.1, 0.2, 0.3]) == sign_flip_p([1, 2, 3])
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1


def test_many_differences_are_flipped_at_random() -> None:
    sample = generator().normal(0.5, 1, 17)
    with pytest.raises(ValueError, match="generator"):
        sign_flip_p(sample)
    bits = np.arange(2**17)[:, None] >> np.arange(17) & 1
    exact = (np.abs((1 - 2 * bits) @ sample) >= abs(sample.sum()) - 1e-9).mean()
    assert sign_flip_p(sample, rng=generator(), resamples=20_000) == pytest.approx(exact, abs=0.01)


def test_t_test_agrees_with_scipy() -> None:
    assert paired_t_p(FIVE) == pytest.approx(stats.ttest_1samp(FIVE, 0).pvalue)
    assert paired_t_p([0.1, 0.1, 0.1]) == 0.25
    assert paired_t_p([0.0, 0.0]) == 1


def test_holm_by_hand() -> None:
    # Sorted 0.01·4, 0.02·3, 0.03·2, 0.04·1 → 0.04, 0.06, 0.06, 0.06 (never falling)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([math.nan])


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0], [[1.0]]])
def test_values_must_be_finite_numbers(values: list[float]) -> None:
    for function in (mean_interval, sign_flip_p, paired_t_p):
        with pytest.raises(ValueError, match="finite"):
            function(values)
