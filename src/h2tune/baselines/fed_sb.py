"""Fed-SB (arXiv 2502.15436, based on LoRA-SB, 2411.19557): trains and shares an r × r matrix between frozen factors.

    y = W x + (α / r) · U_r R V_rᵀ x        R ← Σ_k w_k R_k        w_k = n_k / Σ n

U_r and V_r are the same on every client, so the aggregate is exact, with r² values per module. Clients share within one
model and rank.

Deviation: the paper takes U_r, V_r and the first R from the SVD of the averaged gradient of the first step. There is no
gradient when an adapter is attached, so they are the leading singular vectors of the weight itself, as in LoRA-XS
(arXiv 2405.17604), and R is zero at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from h2tune.baselines.groups import Grouped, GroupRule, same_model_and_rank
from h2tune.baselines.middle import MIDDLE, MiddleAdaptedModel, weight_of
from h2tune.federation.messages import Enrolment, Spec
from h2tune.seeds import isolated

EXTRA, ITERATIONS = 8, 4
"""Oversampling and power iterations of the randomised SVD."""


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return V_rᵀ (r, d_in) and U_r (d_out, r) of a weight; the same on every call, independent of earlier draws."""
    size = min(rank + EXTRA, *weight.shape)
    with isolated(0, "fed-sb"):
        up, _, down = torch.svd_lowrank(weight, q=size, niter=ITERATIONS)
    return down[:, :rank].T.contiguous(), up[:, :rank].contiguous()


def sends(enrolment: Enrolment) -> Spec:
    """Return names and shapes of R, by module."""
    shape = (enrolment.rank, enrolment.rank)
    return {f"{module}.{MIDDLE}": (shape, "float32") for module in enrolment.modules}


def adapted_model(base: PreTrainedModel, enrolment: Enrolment, **options: Any) -> MiddleAdaptedModel:
    """Return the adapted model: R in every module."""

    def frames(module: str, layer: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
        return factors(weight_of(layer), rank)

    return MiddleAdaptedModel(
        base, enrolment, frames=frames, stems={m: m for m in enrolment.modules}, **options
    )


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `fedit.build`."""
    method = GroupRule(
        name="fed-sb",
        together=same_model_and_rank,
        alone="no other client has this model at this rank: same as local",
        sends=sends,
        start=lambda group, seed: {name: torch.zeros(shape) for name, (shape, _) in sends(group[0]).items()},
        adapted_model=adapted_model,
    )
    return Grouped(method, enrolments, **options)
