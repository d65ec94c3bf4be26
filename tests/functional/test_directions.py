"""Equations (11), (13) and (14): label directions, their cosines, and the teacher."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from h2tune.functional import directions
from h2tune.functional.directions import (
    MANY,
    capped,
    centred,
    cosines,
    from_peers,
    label_coordinates,
    loadings,
    relevance,
)
from h2tune.functional.teacher import (
    OWN_SPREAD,
    PEERS_SPREAD,
    TYPICAL,
    blend,
    covered,
    intercepts,
    on_scale,
    teacher,
    two_parts,
    unit_variance,
)

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.integers(2, 5))
def test_directions_have_unit_norm_and_ignore_offsets_and_scale(seed, classes):
    z, scores = random(60, 8, seed=seed), random(60, classes, seed=seed + 1)
    one = label_coordinates(z, scores)
    other = label_coordinates(
        z, 3 * scores + random(1, classes, seed=seed + 2) + random(60, 1, seed=seed + 3)
    )
    assert abs(float(one.norm()) - 1) < 1e-5
    # the offset of a text is taken out before the mean over texts, so that only the scale is left
    assert torch.allclose(one, other, atol=1e-4)


def test_scores_that_say_nothing_have_no_direction():
    direction = label_coordinates(random(20, 4, seed=0), torch.zeros(20, 2))
    assert not bool(direction.any())


@given(seeds, st.integers(2, 4))
def test_a_linear_rule_of_the_coordinates_comes_back(seed, classes):
    z = random(400, 6, seed=seed)
    rule = random(6, classes, seed=seed + 1)
    wanted = rule - rule.mean(1, keepdim=True)
    direction = label_coordinates(z, z @ rule)
    similarity = float((direction * wanted).sum() / wanted.norm())
    assert similarity > 0.99


@given(seeds)
def test_swapped_labels_turn_the_sign_and_count_against_it(seed):
    z, scores = random(80, 8, seed=seed), random(80, 2, seed=seed + 1)
    one, other = label_coordinates(z, scores), label_coordinates(z, scores.flip(1))
    similarity = cosines(torch.stack([one, other]))
    assert abs(float(similarity[0, 1]) + 1) < 1e-4
    peers = from_peers(torch.stack([one, other]), relevance(similarity, dimensions=1000))
    assert float((peers[0] * one).sum()) > 0.9  # minus the swapped one is the same direction


def test_loadings_are_those_of_which_the_cosines_are_made():
    r = torch.tensor([0.8, 0.5, -0.6, 0.3, 0.7])
    similarity = torch.outer(r, r).fill_diagonal_(1.0)
    assert torch.allclose(loadings(similarity), r, atol=1e-3)


@pytest.mark.parametrize("common", [0.7, 0.05, 0.0])
def test_many_clients_have_the_loadings_that_an_eigendecomposition_finds(common, monkeypatch):
    r = common * torch.rand(MANY, generator=torch.Generator().manual_seed(1))
    own = torch.nn.functional.normalize(random(MANY, 32, seed=2), dim=1)
    rows = (
        r[:, None] * torch.nn.functional.normalize(random(1, 32, seed=3)) + (1 - r**2).sqrt()[:, None] * own
    )
    similarity = cosines(torch.nn.functional.normalize(rows, dim=1)[:, :, None])
    found = loadings(similarity)
    monkeypatch.setattr(directions, "MANY", MANY + 1)
    torch.testing.assert_close(found, loadings(similarity), rtol=0, atol=1e-4)


def test_the_best_known_direction_weighs_most_and_strangers_nothing():
    r = torch.tensor([0.9, 0.5, 0.5, -0.5, 0.0])
    weights = relevance(torch.outer(r, r).fill_diagonal_(1.0), dimensions=64)
    assert weights[1, 0] > weights[1, 2] > 0 > weights[1, 3]
    assert not bool(weights[4, :4].any()) and not bool(weights[:4, 4].any())


def test_a_few_labels_that_disagree_by_chance_do_not_turn_a_client_round():
    r = torch.tensor([0.6] * 15 + [-0.15])  # t = −2.7: swapped, or misled by its own labels
    weights = relevance(torch.outer(r, r).fill_diagonal_(1.0), dimensions=64)
    assert not bool(weights[15, :15].any()) and not bool(weights[:15, 15].any())
    r = torch.tensor([0.6] * 15 + [-0.6])
    assert float(relevance(torch.outer(r, r).fill_diagonal_(1.0), dimensions=64)[15, 0]) < -0.5


def test_random_directions_weigh_little():
    taken = []
    for seed in range(20):
        drawn = [label_coordinates(torch.eye(64), random(64, 2, seed=100 * seed + i)) for i in range(6)]
        weights = relevance(cosines(torch.stack(drawn)), dimensions=64)
        taken.append(float(weights.fill_diagonal_(0.0).abs().sum(1).mean()))
    assert sum(taken) / len(taken) < 1.5  # related clients would give 5


@given(seeds, st.integers(2, 4), st.floats(0.0, 1.0))
def test_slopes_are_where_the_posterior_has_no_gradient(seed, classes, share):
    own, peers = random(30, classes, seed=seed), random(30, classes, seed=seed + 1)
    labels = (2 * (own + peers) + random(30, classes, seed=seed + 2)).argmax(1)
    c, a, b = blend(own, peers, labels, share)
    assert c > 0 and a > 0
    value = torch.cat([torch.tensor([c, a]), b]).double().requires_grad_(True)
    logits = value[0] * own.double() + value[1] * peers.double() + value[2:]
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") + value[2:].square().sum() / 2
    loss = loss + ((value[0] - TYPICAL * share) / OWN_SPREAD).square() / 2
    loss = loss + ((value[1] - TYPICAL) / PEERS_SPREAD).square() / 2
    (gradient,) = torch.autograd.grad(loss, value)
    assert float(gradient.abs().max()) < 1e-3


def test_many_labels_decide_between_a_client_and_its_peers_and_none_leave_both_as_sent():
    right, noise = random(2000, 2, seed=0), random(2000, 2, seed=1)
    labels = (right + random(2000, 2, seed=2)).argmax(1)
    own_is_right, peers_are_right = blend(right, noise, labels, 0.2), blend(noise, right, labels, 0.2)
    assert own_is_right[0] > 5 * own_is_right[1] and peers_are_right[1] > 5 * peers_are_right[0]
    c, a, b = blend(right[:0], noise[:0], labels[:0], 0.2)
    assert abs(c - 0.2 * TYPICAL) < 1e-6 and abs(a - TYPICAL) < 1e-6 and not bool(b.any())


def test_scores_of_the_opposite_sign_are_ignored():
    labels = torch.arange(400) % 2
    right = torch.nn.functional.one_hot(labels, 2).float()
    noise = random(400, 2, seed=0)
    assert blend(right, -3 * right, labels, 0.2)[1] == 0.0
    assert blend(-right, noise, labels, 0.2)[0] == 0.0
    assert blend(-right, -right, labels, 0.2)[:2] == (0.0, 0.0)


@given(seeds)
def test_two_parts_make_the_scores_of_their_sum(seed):
    z, own, peers = random(50, 6, seed=seed), random(6, 3, seed=seed + 1), random(6, 3, seed=seed + 2)
    share, theirs, unit = two_parts(z, own, peers)
    mine = centred(z @ own)
    assert torch.allclose(mine / unit + theirs, unit_variance(z @ (own + peers)), atol=1e-4)
    assert abs(share - float(mine.std()) / unit) < 1e-4
    assert two_parts(z, own, -own)[0] == 1.0 and not bool(two_parts(z, own, -own)[1].any())


@given(seeds)
def test_other_texts_are_scored_on_the_scale_of_the_public_ones(seed):
    scores = 4 * random(40, 3, seed=seed) + random(1, 3, seed=seed + 1)
    here, there = on_scale(scores, scores[:5] + 7.0)
    assert torch.allclose(here, unit_variance(scores), atol=1e-5) and torch.allclose(
        here[:5], there, atol=1e-4
    )


@given(seeds)
def test_a_client_takes_nothing_of_its_own_from_its_peers(seed):
    directions = torch.stack([random(6, 2, seed=seed + i) for i in range(3)])
    weights = cosines(directions)
    assert torch.equal(weights.diagonal(), torch.ones(3))
    peers = from_peers(directions, weights)
    expected = weights[0, 1] * directions[1] + weights[0, 2] * directions[2]
    assert torch.allclose(peers[0], expected, atol=1e-5)


@given(seeds, st.integers(2, 4))
def test_intercepts_are_where_the_posterior_has_no_slope(seed, classes):
    scores = random(30, classes, seed=seed)
    labels = torch.randint(classes, (30,), generator=torch.Generator().manual_seed(seed))
    b = intercepts(scores, labels, slope=2.0, spread=1.0).double().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(2.0 * scores.double() + b, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss + b.square().sum() / 2, b)
    assert float(gradient.abs().max()) < 1e-3


def test_the_teacher_leans_to_labels_that_are_frequent():
    scores = unit_variance(random(40, 2, seed=1))
    often = intercepts(torch.zeros(10, 2), torch.tensor([0] * 9 + [1]))
    q = teacher(scores, often)
    assert torch.allclose(q.sum(1), torch.ones(40), atol=1e-5)
    assert float(q[:, 0].mean()) > float(teacher(scores, torch.zeros(2))[:, 0].mean())


@given(seeds)
def test_texts_of_the_same_kind_are_covered_and_texts_of_other_directions_are_not(seed):
    """Public texts vary in the first twenty of sixty directions."""
    public = random(200, 60, seed=seed) * torch.cat([torch.ones(20), torch.full((40,), 0.1)])
    alike = random(40, 60, seed=seed + 1) * torch.cat([torch.ones(20), torch.full((40,), 0.1)])
    others = random(40, 60, seed=seed + 1) * torch.cat([torch.full((20,), 0.1), torch.ones(40)])
    assert abs(covered(public, alike, 20) - 1) < 0.05
    assert covered(public, others, 20) < 0.1


@given(seeds, st.floats(0.1, 10))
def test_the_cover_does_not_depend_on_scale_and_rotation(seed, scale):
    public, own = random(80, 10, seed=seed), random(12, 10, seed=seed + 1)
    turn = torch.linalg.qr(random(10, 10, seed=seed + 2))[0] * scale
    assert abs(covered(public, own, 4) - covered(public @ turn, own @ turn, 4)) < 1e-3


def test_a_text_alone_and_few_public_texts_are_covered_by_a_number():
    assert 0 <= covered(random(4, 3, seed=0), random(1, 3, seed=1)) < 100


def related(count: int, copies: int, seed: int) -> torch.Tensor:
    """Return directions of clients of one task, and copies of a direction that has nothing to do with it."""
    common, other = random(1, 64, 2, seed=seed), random(1, 64, 2, seed=seed + 1)
    honest = common + 1.2 * random(count, 64, 2, seed=seed + 2)
    found = torch.cat([honest, other.expand(copies, -1, -1)])
    return found / found.flatten(1).norm(dim=1)[:, None, None]


@given(st.integers(0, 500))
def test_copies_of_a_direction_are_no_factor_of_their_own_under_a_robust_rule(seed):
    directions = related(7, 3, 10 * seed)
    alone = relevance(cosines(directions[:7]), 64)
    robust = relevance(capped(cosines(directions), 3), 64)
    heard = float(robust[:7, 7:].abs().sum() / robust[:7].clone().fill_diagonal_(0).abs().sum())
    assert heard < 0.3  # of equal voices, a third
    assert float(robust[0, 1:7].abs().sum()) > 0.5 * float(alone[0, 1:].abs().sum())


def test_capped_cosines_change_nothing_without_hostile_clients_and_keep_signs():
    similarity = cosines(related(5, 2, 3))
    assert torch.equal(capped(similarity, 0), similarity)
    bounded = capped(similarity, 2)
    assert torch.equal(bounded.sign(), similarity.sign()) and bool((bounded.abs() <= similarity.abs()).all())
    assert torch.equal(bounded, bounded.T)
    assert float(bounded[5, 6]) < 0.9 < float(similarity[5, 6])
