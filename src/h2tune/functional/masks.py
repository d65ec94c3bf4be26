"""Masks: which r² entries of an (R, R) middle matrix a client keeps. Equation (2); pure.

A mask is stored as Ω, the sorted row-major positions of the kept entries in the (R, R) grid. Gathering with it and
reshaping gives the (r, r) middle matrix in row-major order.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Mask = Literal["entry", "block", "leading"]


def choose_mask(scores: Float[Tensor, "R R"], rank: int, mask: Mask) -> Int[Tensor, " rr"]:
    """Choose Ω from the scores S.

    Args:
        scores: Mask scores S.
        rank: The client's rank r; r² entries are kept.
        mask: `"entry"` keeps the r² best entries wherever they are (what the release does). `"block"` keeps the
            sub-grid of the r best rows and the r best columns by their mean score, so that row a and column b keep
            their meaning. `"leading"` ignores the scores and keeps the leading r × r block (the ablation without
            masks).

    Returns:
        Sorted positions in the row-major (R, R) grid. Ties go to the lower position, so that the choice does not
        depend on the machine.

    Raises:
        ValueError: If the rank is below 1 or above R, or the mask is unknown.
    """
    size = scores.shape[0]
    if not 1 <= rank <= size:
        raise ValueError(f"rank {rank} is outside 1..{size} (the common rank R)")
    if mask == "entry":
        return _best(scores.flatten(), rank * rank)
    if mask == "block":
        return _grid(_best(scores.mean(dim=1), rank), _best(scores.mean(dim=0), rank), size)
    if mask == "leading":
        leading = torch.arange(rank, device=scores.device)
        return _grid(leading, leading, size)
    raise ValueError(f"unknown mask '{mask}': use 'entry', 'block' or 'leading'")


def gather(grid: Float[Tensor, "*modules R R"], index: Int[Tensor, " rr"]) -> Float[Tensor, "*modules r r"]:
    """Read the entries Ω of a grid as an (r, r) matrix, in row-major order of Ω. Equation (2)."""
    rank = rank_of(index)
    entries: Tensor = grid.flatten(-2)[..., index].unflatten(-1, (rank, rank))
    return entries


def scatter(values: Float[Tensor, "r r"], index: Int[Tensor, " rr"], size: int) -> Float[Tensor, "R R"]:
    """Put an (r, r) matrix back at the entries Ω of an (R, R) grid of zeros: the inverse of `gather` on Ω."""
    grid = values.new_zeros(size * size)
    grid[index] = values.flatten()
    return grid.view(size, size)


def rank_of(index: Int[Tensor, " rr"]) -> int:
    """Return r for a mask of r² entries.

    Raises:
        ValueError: If the number of entries is not a square.
    """
    rank: int = round(index.numel() ** 0.5)
    if rank * rank != index.numel():
        raise ValueError(f"a mask of {index.numel()} entries is not square")
    return rank


def gate(scores: Float[Tensor, "R R"], index: Int[Tensor, " rr"]) -> Float[Tensor, "r r"]:
    """Return ones whose gradient reaches the scores of Ω (straight-through, edge-popup, arXiv 1911.13299).

    The value is exactly 1, so multiplying by it changes no bit of a middle matrix. The gradient of a score is the
    gradient of its gate: the gradient of the entry times the entry's value.
    """
    selected = gather(scores, index)
    return 1 + (selected - selected.detach())


def _best(values: Float[Tensor, " n"], count: int) -> Int[Tensor, " k"]:
    order = torch.sort(values, descending=True, stable=True).indices
    return order[:count].sort().values


def _grid(rows: Int[Tensor, " r"], columns: Int[Tensor, " r"], size: int) -> Int[Tensor, " rr"]:
    return (rows[:, None] * size + columns[None, :]).flatten()
