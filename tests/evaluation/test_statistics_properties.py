from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from h2tune.evaluation.statistics import bootstrap_interval, holm, mean_interval, paired_t_p, sign_flip_p

samples = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=2, max_size=7)


@given(samples, st.sampled_from([-2.0, 0.5, 3.0]))
def test_intervals_hold_their_mean_and_scale_with_the_data(values: list[float], scale: float) -> None:
    for interval in (
        mean_interval,
        lambda v: bootstrap_interval(v, rng=np.random.default_rng(0), resamples=300),
    ):
        mean, low, high = interval(values)
        assert low <= mean + 1e-12
        assert mean <= high + 1e-12
        scaled = interval([scale * v for v in values])
        ends = sorted((scale * low, scale * high))
        assert np.allclose(scaled[1:], ends)


@given(samples)
def test_p_values_do_not_depend_on_order_or_sign(values: list[float]) -> None:
    for test in (sign_flip_p, paired_t_p):
        p = test(values)
        assert 0 <= p <= 1
        assert np.isclose(test(values[::-1]), p)
        assert np.isclose(test([-v for v in values]), p)
    assert sign_flip_p(values) >= 2 / 2 ** len(values)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    for raw, value in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, raw * len(p)) + 1e-15
    assert all(corrected[i] <= corrected[j] for i in range(len(p)) for j in range(len(p)) if p[i] < p[j])
