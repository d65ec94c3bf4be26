"""The headroom that pooled labels leave, and the share of it that a method recovers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2tune.compare.comparison import Comparison
from h2tune.compare.headroom import fieller, recovered
from h2tune.compare.methods import parse_methods
from h2tune.compare.results import ClientResult, RunResult
from h2tune.compare.tables import headroom_cells, markdown
from h2tune.report import formats


def run(*accuracies: float) -> RunResult:
    return RunResult({f"c{i}": ClientResult(a, 0, 0, 0.0) for i, a in enumerate(accuracies)})


def test_shares_and_harm_by_hand():
    results = {
        "local": {0: run(0.6, 0.7), 1: run(0.62, 0.68)},
        "pooled": {0: run(0.8, 0.8), 1: run(0.8, 0.82)},
        "h2tune": {0: run(0.75, 0.68), 1: run(0.75, 0.66)},
    }
    (found,) = recovered(results, ["c0", "c1"])
    assert found.method == "h2tune"
    assert found.headroom == pytest.approx(0.155)
    assert found.share == pytest.approx(0.06 / 0.155)
    assert (found.harmed, found.clients) == (1, 2)


def test_harm_counts_over_all_seeds_where_pooled_has_fewer():
    results = {
        "local": {0: run(0.6, 0.7), 1: run(0.6, 0.7)},
        "pooled": {0: run(0.8, 0.8)},
        "h2tune": {0: run(0.7, 0.6), 1: run(0.4, 0.9)},
    }
    (found,) = recovered(results, ["c0", "c1"])
    assert found.share == pytest.approx(0.0) and found.harmed == 1  # c0, by its second seed


def test_without_local_or_pooled_there_is_no_headroom():
    assert recovered({"local": {0: run(0.5)}, "h2tune": {0: run(0.6)}}, ["c0"]) == []


def test_local_training_counts_whatever_was_changed_in_it(tmp_path):
    texts = ["h2tune", "local+train.local_steps=80", "pooled+train.local_steps=40"]
    results = {t: {0: run(a)} for t, a in zip(texts, (0.7, 0.6, 0.8), strict=True)}
    found = Comparison(tmp_path, "tiny", "test", texts[1], parse_methods(texts), [0], ["c0"], results)
    (entry,) = found.facts()["recovered"]
    assert entry["method"] == "h2tune" and entry["share"] == pytest.approx(0.5)
    text = markdown(found.rows(), found.facts())
    assert "Headroom (pooled − local): +20.0 points" in text
    assert f"| h2tune | 50{formats.SPACE}% | – | 0 of 1 |" in text
    assert headroom_cells({"recovered": []}) == []


def test_one_seed_has_no_interval_and_no_gain_no_share():
    results = {"local": {0: run(0.6)}, "pooled": {0: run(0.5)}, "h2tune": {0: run(0.7)}}
    (found,) = recovered(results, ["c0"])
    assert found.share is None and found.headroom_low is None and found.share_low is None


@given(st.integers(0, 2**31), st.floats(-1.0, 2.0))
def test_the_interval_holds_the_ratio_of_the_means(seed, ratio):
    rng = np.random.default_rng(seed)
    room = (0.1 + 0.01 * rng.standard_normal(8)).tolist()
    gain = [ratio * r + 0.01 * e for r, e in zip(room, rng.standard_normal(8), strict=True)]
    low, high = fieller(gain, room)
    assert low is not None and high is not None
    assert low <= np.mean(gain) / np.mean(room) <= high


def test_the_interval_covers_about_nineteen_in_twenty():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        room = 0.1 + 0.02 * rng.standard_normal(6)
        gain = 0.5 * room + 0.02 * rng.standard_normal(6)
        low, high = fieller(gain.tolist(), room.tolist())
        hits += low is not None and high is not None and low <= 0.5 <= high
    assert 360 <= hits <= 395


def test_a_headroom_that_may_be_zero_bounds_nothing():
    assert fieller([0.1, -0.1, 0.1], [0.1, -0.1, 0.05]) == (None, None)
