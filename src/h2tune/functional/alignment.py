"""Relation-guided layer alignment: equations (3) and (4); pure.

A client of depth L sees the federation's D shared slots through its relation matrix P (D, L), whose columns are
distributions over slots.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Alignment = Literal["learned", "depth"]
"""Whether a relation is learned, or fixed by relative depth."""

SHARPNESS = 8.0
"""Fall of the initial logits per squared slot of distance: a neighbouring slot starts at e⁻⁸ ≈ 0.03 %."""

TINY = 1e-12
"""Weights below this count as zero, since products of denormal numbers are noise. Deviation: (4) has no floor."""


def initial_logits(slots: int, depth: int, sharpness: float = SHARPNESS) -> Float[Tensor, "D L"]:
    """Return the logits Z from which a relation starts: block l is centred on slot l·(D−1)/(L−1).

    A single block is centred on the middle slot. For L = D the relation starts as the identity to within 7e-4; an exact
    identity would saturate the softmax, and Z could never learn.
    """
    return -sharpness * _distance(slots, depth).square()


def relation(logits: Float[Tensor, "D L"], temperature: float = 1.0) -> Float[Tensor, "D L"]:
    """Return P = softmax over slots of Z / τ: every column sums to one."""
    return torch.softmax(logits / temperature, dim=0)


def fixed_relation(slots: int, depth: int) -> Float[Tensor, "D L"]:
    """Return the relation by depth alone (the ablation without alignment): linear interpolation, exact identity.

    Block l mixes the two slots around l·(D−1)/(L−1), weighted by nearness.
    """
    if depth == 1:
        return (1 - _distance(slots, depth).abs()).clamp(min=0)
    # whole numbers, so that a slot is exactly one block's or none: rounded centres leave weights of 1e-7
    steps = depth - 1
    apart = steps * torch.arange(slots)[:, None] - (slots - 1) * torch.arange(depth)[None, :]
    return (steps - apart.abs()).clamp(min=0).float() / steps


def to_blocks(
    relation: Float[Tensor, "D L"], shared: Float[Tensor, "D modules R R"]
) -> Float[Tensor, "L modules R R"]:
    """Return each block's mixture of slots: M[l, m] = Σ_g P[g, l] · G[g, m]. Equation (3)."""
    return torch.einsum("gl,gmab->lmab", relation, shared)


def to_slots(
    relation: Float[Tensor, "D L"], blocks: Float[Tensor, "L modules R R"]
) -> Float[Tensor, "D modules R R"]:
    """Map blocks back to slots: N[g, m] = Σ_l P[g, l] · (·)[l, m]. Equation (4), for increments and for masks."""
    return torch.einsum("gl,lmab->gmab", torch.where(relation > TINY, relation, 0.0), blocks)


def _distance(slots: int, depth: int) -> Float[Tensor, "D L"]:
    """Return the signed distance of each slot from each block's centre by relative depth."""
    centres = torch.linspace(0, slots - 1, depth) if depth > 1 else torch.tensor([(slots - 1) / 2])
    return torch.arange(slots, dtype=torch.float32)[:, None] - centres[None, :]
