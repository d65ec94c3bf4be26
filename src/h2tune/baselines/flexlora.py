"""FlexLoRA (arXiv 2402.11505): the update itself is averaged; each client gets its best approximation of its rank.

    ΔW = Σ_k w_k s_k B_k A_k        U Σ Vᵀ = SVD(ΔW)        s_k B_k ← U_[:r_k] Σ_[:r_k],  A_k ← Vᵀ_[:r_k]

with w_k = n_k / Σ n and s_k = α / r_k, LoRA's scale. The SVD is computed from the stacked factors, which is exact and
needs no dense ΔW. Clients share within one model, whatever their ranks.

Deviation: the paper writes ΔW_k = B_k A_k. Where ranks differ, LoRA's scales differ too, and only the product with its
scale is the update of a client's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from h2tune.baselines.groups import Contribution, Grouped, GroupRule, model_seed, same_model
from h2tune.baselines.lora import BOTH, DOWN, UP, LoraAdaptedModel, common_start, shapes
from h2tune.federation.messages import Enrolment, Tensors


def truncated(state: Mapping[str, Tensor], enrolment: Enrolment, *, alpha: float) -> Tensors:
    """Return the first r rows of A and columns of s B, the latter divided by the client's own scale s = α / r."""
    r = enrolment.rank
    return {
        name: tensor[:r].clone() if name.endswith(DOWN) else tensor[:, :r] / (alpha / r)
        for name, tensor in state.items()
        if name.endswith(BOTH)
    }


def merge(state: Mapping[str, Tensor], contributions: Sequence[Contribution], *, alpha: float) -> Tensors:
    """Return the SVD of the weighted sum of the updates, to the largest rank of the group.

    Args:
        state: A (R, d_in) and s B (d_out, R) before the round.
        contributions: The clients' updates.
        alpha: LoRA's α.
    """
    merged: Tensors = {}
    for name in [name.removesuffix(f".{DOWN}") for name in state if name.endswith(DOWN)]:
        down = torch.cat([c.tensors[f"{name}.{DOWN}"].double() for c in contributions])
        up = torch.cat(
            [c.weight * alpha / c.enrolment.rank * c.tensors[f"{name}.{UP}"].double() for c in contributions],
            dim=1,
        )
        left, inner_left = torch.linalg.qr(up)
        right, inner_right = torch.linalg.qr(down.T)
        u, singular, vt = torch.linalg.svd(inner_left @ inner_right.T)
        merged[f"{name}.{UP}"] = torch.zeros_like(state[f"{name}.{UP}"])
        merged[f"{name}.{DOWN}"] = torch.zeros_like(state[f"{name}.{DOWN}"])
        rank = min(len(singular), merged[f"{name}.{DOWN}"].shape[0])
        merged[f"{name}.{UP}"][:, :rank] = left @ u[:, :rank] * singular[:rank]
        merged[f"{name}.{DOWN}"][:rank] = vt[:rank] @ right.T
    return merged


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, alpha: float, **options: Any) -> Grouped:
    """Return the strategy.

    Args:
        enrolments: The clients.
        shared_rank: Not used; the server keeps a group's largest rank.
        alpha: LoRA's α.
        options: Dropout, weighting and seed, as `Grouped` takes them.
    """
    method = GroupRule(
        name="flexlora",
        together=same_model,
        alone="no other client has this model: same as local",
        sends=shapes,
        start=lambda group, seed: common_start(group, model_seed(group, seed)),
        adapted_model=partial(LoraAdaptedModel, shared=BOTH),
        merge=partial(merge, alpha=alpha),
        fit=partial(truncated, alpha=alpha),
    )
    return Grouped(method, enrolments, alpha=alpha, **options)
