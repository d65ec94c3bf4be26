"""Alignment and aggregation: equations (3) to (5)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from h2tune.functional import alignment
from h2tune.functional.aggregation import Sums
from h2tune.functional.estimators import COVERED
from h2tune.functional.factors import Factors, contribution
from h2tune.functional.masks import choose_mask

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))  # D, L, R
ROLES = ("attn.q", "mlp.up")


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def client(depth: int, rank: int, size: int, seed: int, mask: str = "entry"):
    """Random increments and masks of a client with all roles."""
    increments, masks = {}, {}
    for b in range(depth):
        for i, role in enumerate(ROLES):
            place = (b, role)
            increments[place] = random(rank, rank, seed=seed + 10 * b + i)
            masks[place] = choose_mask(random(size, size, seed=seed + 999 + 10 * b + i), rank, mask)
    return increments, masks


@given(sizes)
def test_relations_are_distributions_over_slots(shape):
    slots, depth, _ = shape
    for relation in (
        alignment.relation(alignment.initial_logits(slots, depth)),
        alignment.fixed_relation(slots, depth),
    ):
        assert relation.shape == (slots, depth)
        assert torch.allclose(relation.sum(0), torch.ones(depth), atol=1e-5)
        assert bool((relation >= 0).all())


@given(st.integers(1, 40))
def test_equal_depths_start_as_the_identity(depth):
    assert torch.allclose(
        alignment.relation(alignment.initial_logits(depth, depth)), torch.eye(depth), atol=1e-3
    )
    assert torch.allclose(alignment.fixed_relation(depth, depth), torch.eye(depth), atol=1e-5)


def test_relative_depth_by_hand():
    # three blocks on five slots look at slots 0, 2 and 4; two blocks on three slots at 0 and 2
    expected = torch.zeros(5, 3)
    expected[0, 0] = expected[2, 1] = expected[4, 2] = 1
    assert torch.allclose(alignment.fixed_relation(5, 3), expected)
    # two blocks in the middle of two slots each
    assert torch.allclose(alignment.fixed_relation(2, 3)[:, 1], torch.tensor([0.5, 0.5]))


def test_equation_3_by_hand():
    relation = torch.tensor([[0.25, 1.0], [0.75, 0.0]])
    shared = torch.tensor([[[[4.0]]], [[[8.0]]]])
    assert alignment.to_blocks(relation, shared).flatten().tolist() == [7.0, 4.0]


@given(sizes, seeds)
def test_to_slots_is_the_transpose_of_to_blocks(shape, seed):
    slots, depth, size = shape
    relation = alignment.relation(random(slots, depth, seed=seed))
    shared, blocks = random(slots, 2, size, size, seed=seed + 1), random(depth, 2, size, size, seed=seed + 2)
    left = (alignment.to_blocks(relation, shared) * blocks).sum()
    right = (shared * alignment.to_slots(relation, blocks)).sum()
    assert torch.allclose(left, right, atol=1e-4)


@given(sizes, seeds)
def test_no_training_changes_nothing_to_the_bit(shape, seed):
    slots, depth, size = shape
    shared = random(slots, 2, size, size, seed=seed)
    increments, masks = client(depth, size, size, seed)
    zero = {place: torch.zeros_like(t) for place, t in increments.items()}
    sums = Sums(shared.shape)
    relation = alignment.relation(alignment.initial_logits(slots, depth))
    sums.add(*contribution(zero, masks, relation, ROLES, size), 3.0, [0, 1])
    assert torch.equal(sums.step(shared), shared)


@given(sizes, seeds, st.integers(1, 4))
def test_identical_clients_equal_one(shape, seed, count):
    slots, depth, size = shape
    shared = random(slots, 2, size, size, seed=seed)
    relation = alignment.relation(random(slots, depth, seed=seed))
    increments, masks = client(depth, size, size, seed)
    one, many = Sums(shared.shape), Sums(shared.shape)
    one.add(*contribution(increments, masks, relation, ROLES, size), 1.0, [0, 1])
    for _ in range(count):
        many.add(*contribution(increments, masks, relation, ROLES, size), 7.0, [0, 1])
    assert torch.allclose(many.step(shared), one.step(shared), atol=1e-4)


@given(st.integers(1, 5), st.integers(1, 4), seeds)
def test_equal_depth_rank_and_full_mask_is_fedavg(depth, size, seed):
    shared = random(depth, 2, size, size, seed=seed)
    relation = alignment.fixed_relation(depth, depth)
    sums, mean, total = Sums(shared.shape), torch.zeros_like(shared), 0.0
    for k, weight in enumerate((10.0, 30.0, 5.0)):
        increments, masks = client(depth, size, size, seed + k)
        sums.add(*contribution(increments, masks, relation, ROLES, size), weight, [0, 1])
        for (block, role), increment in increments.items():
            mean[block, ROLES.index(role)] += weight * increment
        total += weight
    assert torch.allclose(sums.step(shared), shared + mean / total, atol=1e-4)


@given(st.integers(1, 4), st.integers(2, 5), seeds, st.sampled_from(["entry", "block"]))
def test_a_client_changes_only_entries_it_covers(depth, size, seed, mask):
    shared = random(depth, 2, size, size, seed=seed)
    increments, masks = client(depth, size - 1, size, seed, mask)
    sums = Sums(shared.shape)
    relation = alignment.fixed_relation(depth, depth)
    sums.add(*contribution(increments, masks, relation, ROLES, size), 1.0, [0, 1])
    changed = sums.step(shared) != shared
    for (block, role), index in masks.items():
        covered = torch.zeros(size * size, dtype=torch.bool)
        covered[index] = True
        assert not bool((changed[block, ROLES.index(role)].flatten() & ~covered).any())


@given(sizes, seeds)
def test_order_does_not_matter(shape, seed):
    slots, depth, size = shape
    shared = random(slots, 2, size, size, seed=seed)
    parts = []
    for k in range(3):
        relation = alignment.relation(random(slots, depth, seed=seed + k))
        increments, masks = client(depth, size, size, seed + k)
        parts.append((*contribution(increments, masks, relation, ROLES, size), float(k + 1), [0, 1]))
    forward, backward = Sums(shared.shape), Sums(shared.shape)
    for part in parts:
        forward.add(*part)
    for part in reversed(parts):
        backward.add(*part)
    assert torch.allclose(forward.step(shared), backward.step(shared), atol=1e-4)


def test_an_uncovered_role_stays_as_it_is():
    shared = random(2, 2, 2, 2, seed=0)
    sums = Sums(shared.shape)
    sums.add(torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2), 1.0, [1])
    after = sums.step(shared, 0.5)
    assert torch.equal(after[:, 0], shared[:, 0])
    assert torch.allclose(after[:, 1], shared[:, 1] + 0.5)


@given(
    sizes,
    seeds,
    st.sampled_from(["entry", "block", "leading"]),
    st.sampled_from(["mixed", "depth", "learned"]),
)
def test_factors_add_up_to_what_they_stand_for(shape, seed, mask, kind):
    slots, depth, size = shape
    relation = {
        "mixed": alignment.relation(random(slots, depth, seed=seed)),
        "depth": alignment.fixed_relation(slots, depth),
        "learned": alignment.relation(alignment.initial_logits(slots, depth)),
    }[kind]
    clear, fast = Sums((slots, 2, size, size)), Sums((slots, 2, size, size))
    for k, rank in enumerate((size, max(1, size - 1))):
        increments, masks = client(depth, rank, size, seed + k, mask)
        blocks = {"attn.q": tuple(range(depth)), "mlp.up": tuple(range(depth - 1))}  # one block lacks a role
        del increments[depth - 1, "mlp.up"]
        factors = Factors(
            {r: torch.stack([increments[b, r] for b in bs]) for r, bs in blocks.items() if bs},
            {
                r: None if rank == size else torch.stack([masks[b, r] for b in bs])
                for r, bs in blocks.items()
                if bs
            },
            blocks,
            relation,
            rank if mask == "leading" else None,
        )
        clear.add(*contribution(increments, masks, relation, ROLES, size), 2.5 + k, [0, 1])
        fast.add_factors(factors, 2.5 + k, {"attn.q": 0, "mlp.up": 1})
    shared = random(slots, 2, size, size, seed=seed + 7)
    assert torch.allclose(fast.learned, clear.learned, atol=1e-5)
    assert torch.allclose(fast.coverage, clear.coverage, atol=1e-5)
    assert torch.equal(fast.coverage > alignment.TINY, clear.coverage > alignment.TINY)
    assert torch.allclose(fast.step(shared), clear.step(shared), atol=1e-4)


def test_equal_depth_and_whole_grids_are_a_plain_sum_to_the_bit():
    increments, _ = client(4, 3, 3, 5)
    blocks = dict.fromkeys(ROLES, tuple(range(4)))
    stacked = {r: torch.stack([increments[b, r] for b in range(4)]) for r in ROLES}
    sums = Sums((4, 2, 3, 3))
    factors = Factors(stacked, dict.fromkeys(ROLES), blocks, alignment.fixed_relation(4, 4))
    sums.add_factors(factors, 3.0, {"attn.q": 0, "mlp.up": 1})
    assert torch.equal(sums.learned, torch.stack([3.0 * stacked[r] for r in ROLES], dim=1))
    assert torch.equal(sums.coverage, torch.full_like(sums.learned, 3.0))


def test_what_is_held_back_stays_as_it_is():
    shared, (increments, masks) = random(2, 2, 2, 2, seed=0), client(2, 2, 2, 1)
    sums = Sums(shared.shape)
    sums.add(*contribution(increments, masks, alignment.fixed_relation(2, 2), ROLES, 2), 1.0, [0, 1])
    sums.hold_back(0)
    after = sums.step(shared)
    assert torch.equal(after[:, 0], shared[:, 0]) and not torch.equal(after[:, 1], shared[:, 1])


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), seeds)
def test_a_sum_gives_every_client_its_own_step_back(depth, size, count, seed):
    """Equal depth, whole grids: T of each client afterwards is what it learned and what all the others did."""
    shared, relation = random(depth, 2, size, size, seed=seed), torch.eye(depth)
    sums, total = Sums(shared.shape), torch.zeros_like(shared)
    for i in range(count):
        learned = random(depth, 2, size, size, seed=seed + 1 + i)
        increments = {(b, r): learned[b, k] for b in range(depth) for k, r in enumerate(ROLES)}
        whole = torch.arange(size * size).expand(depth, -1)
        masks = {(b, r): whole[b] for b in range(depth) for r in ROLES}
        sums.add(*contribution(increments, masks, relation, ROLES, size), 2.0, range(2))
        total += learned
    again, summed = copy.deepcopy(sums), sums.step(shared, over=2.0)
    assert torch.allclose(summed, shared + total, atol=1e-5)
    assert torch.allclose(again.step(shared, rate=float(count)), summed, atol=1e-5)
    with pytest.raises(RuntimeError, match="was already called"):
        sums.step(shared)


def test_a_sum_leaves_alone_what_nobody_covers():
    shared = random(1, 2, 3, 3, seed=0)
    sums = Sums(shared.shape)
    learned = torch.zeros(1, 2, 3, 3)
    learned[0, 0, 0, 0] = 2.0
    sums.add(learned, (learned > 0).float() / 4, 4.0, range(2))
    after = sums.step(shared, rate=0.5, over=4.0)
    assert float(after[0, 0, 0, 0] - shared[0, 0, 0, 0]) == 1.0  # 0.5 · 2, whatever part of a block covers it
    after[0, 0, 0, 0] = shared[0, 0, 0, 0]
    assert torch.equal(after, shared)


def test_a_fixed_relation_has_no_dust_at_any_pair_of_depths():
    for slots in range(2, 65):
        for depth in range(2, slots + 1):
            relation = alignment.fixed_relation(slots, depth)
            assert not bool(((relation > 0) & (relation < 0.9 / (depth - 1))).any()), (slots, depth)
            assert torch.allclose(relation.sum(0), torch.ones(depth), atol=1e-6)


def test_noise_is_not_divided_by_a_tiny_coverage():
    sums = Sums((1, 1, 2, 2))
    coverage = torch.tensor([[[[1.0, 1e-6], [0.05, 0.5]]]])
    sums.add(torch.full((1, 1, 2, 2), 2.0), coverage, 1.0, [0])  # as much noise everywhere
    after = sums.step(torch.zeros(1, 1, 2, 2), least=COVERED)
    assert torch.allclose(after, torch.tensor([[[[2.0, 0.0], [0.0, 4.0]]]]))
