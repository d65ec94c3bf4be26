"""Masks keep what they must: equation (2)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from h2tune.federation.h2tune import wire
from h2tune.functional.masks import choose_mask, gate, gather, scatter

ranks = st.integers(1, 9).flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size)))
kinds_of_mask = st.sampled_from(["entry", "block", "leading"])
seeds = st.integers(0, 2**31)


def scores_of(size: int, seed: int) -> torch.Tensor:
    return torch.rand(size, size, generator=torch.Generator().manual_seed(seed))


@given(ranks, kinds_of_mask, seeds)
def test_masks_keep_exactly_the_square_of_the_rank(shape, mask, seed):
    rank, size = shape
    index = choose_mask(scores_of(size, seed), rank, mask)
    assert index.numel() == rank * rank
    assert torch.equal(index, index.unique())  # sorted and distinct
    assert int(index.min()) >= 0 and int(index.max()) < size * size


@given(ranks, seeds)
def test_entry_masks_keep_the_best_scores(shape, seed):
    rank, size = shape
    scores = scores_of(size, seed)
    kept = choose_mask(scores, rank, "entry")
    left = torch.ones(size * size, dtype=torch.bool)
    left[kept] = False
    if left.any():
        assert scores.flatten()[kept].min() >= scores.flatten()[left].max()


@given(ranks, seeds)
def test_block_masks_keep_whole_rows_and_columns(shape, seed):
    rank, size = shape
    index = choose_mask(scores_of(size, seed), rank, "block")
    assert len({int(i) // size for i in index}) == rank
    assert len({int(i) % size for i in index}) == rank


@given(st.integers(2, 9), seeds)
def test_masks_of_smaller_ranks_nest_in_larger_ones(size, seed):
    scores = scores_of(size, seed)
    for mask in ("entry", "block", "leading"):
        small = set(choose_mask(scores, size - 1, mask).tolist())
        assert small <= set(choose_mask(scores, size, mask).tolist())


@given(ranks, kinds_of_mask, seeds)
def test_gather_undoes_scatter(shape, mask, seed):
    rank, size = shape
    index = choose_mask(scores_of(size, seed), rank, mask)
    values = scores_of(rank, seed + 1) + 1
    grid = scatter(values, index, size)
    assert torch.equal(gather(grid, index), values)
    assert int((grid != 0).sum()) == rank * rank


def test_gather_is_in_row_major_order():
    grid = torch.arange(9.0).view(3, 3)
    assert gather(grid, torch.tensor([1, 3, 5, 8])).tolist() == [[1, 3], [5, 8]]


def test_equal_scores_are_chosen_by_position():
    assert choose_mask(torch.zeros(3, 3), 2, "entry").tolist() == [0, 1, 2, 3]


def test_the_gate_is_one_and_passes_the_gradient_to_selected_scores_alone():
    scores = torch.rand(4, 4, requires_grad=True)
    index = torch.tensor([0, 5, 10, 15])
    gates = gate(scores, index)
    assert torch.equal(gates.detach(), torch.ones(2, 2))
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (gates * values).sum().backward()
    expected = torch.zeros(16)
    expected[index] = values.flatten()
    assert torch.equal(scores.grad.flatten(), expected)


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_outside_the_grid_is_refused(rank):
    with pytest.raises(ValueError, match="rank"):
        choose_mask(torch.zeros(4, 4), rank, "entry")


@given(ranks, kinds_of_mask, seeds, st.integers(1, 4))
def test_packed_masks_come_back(shape, mask, seed, modules):
    rank, size = shape
    chosen = [choose_mask(scores_of(size, seed + i), rank, mask) for i in range(modules)]
    packed = wire.pack_masks(chosen, size)
    assert (tuple(packed.shape), str(packed.dtype).removeprefix("torch.")) == wire.mask_spec(
        modules, rank, size
    )
    assert torch.equal(wire.unpack_masks(packed, rank, size), torch.stack(chosen))


@pytest.mark.parametrize(("rank", "size"), [(2, 16), (8, 16), (3, 300)])
def test_masks_of_another_count_are_refused(rank, size):
    packed = wire.pack_masks([choose_mask(scores_of(size, 0), rank, "entry")], size)
    broken = packed.clone()
    if packed.dtype == torch.uint8:
        broken[0, 0] ^= 1
    else:
        broken[0, 1] = broken[0, 0]
    with pytest.raises(Exception, match="mask"):
        wire.unpack_masks(broken, rank, size)
