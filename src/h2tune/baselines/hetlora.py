"""HetLoRA (arXiv 2401.06432): LoRA of different ranks, padded for averaging and truncated for each client.

    Ā_k, s B̄_k = A_k, s_k B_k padded with zeros to the largest rank        p_k = ‖ΔW_k‖_F / Σ_j ‖ΔW_j‖_F
    A ← Σ_k p_k Ā_k        s B ← Σ_k p_k s B̄_k        client k gets the first r_k rows and columns

with ΔW_k = s_k B_k A_k for each module. Self-pruning: clients add λ Σ ‖B_[:, γr:r]‖ ‖A_[γr:r]‖ to their loss; a client
whose sum is smaller after training than before prunes those ranks, r ← ⌊γ r⌋. Clients share within one model.

Deviations: B is averaged including its scale s_k = α / r_k, so that columns have the same scale on every client. The
shapes of messages are fixed, so pruned ranks are sent as zeros, and the bytes are those of the initial rank. λ and γ,
which the paper tunes, are constants of `pruning`. As in the paper, p_k does not depend on example counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from h2tune.baselines.flexlora import truncated
from h2tune.baselines.groups import Contribution, Grouped, GroupRule, model_seed, same_model
from h2tune.baselines.lora import DOWN, UP, common_start, shapes
from h2tune.baselines.pruning import RANK, HetLoraAdaptedModel, cut
from h2tune.federation.messages import Enrolment, Spec, Tensors


def fit(state: Mapping[str, Tensor], enrolment: Enrolment, *, alpha: float) -> Tensors:
    """Return the truncation to the client's rank; pruned ranks are zero."""
    rank = state.get(f"{RANK}.{enrolment.name}")
    return cut(truncated(state, enrolment, alpha=alpha), enrolment.rank if rank is None else int(rank))


def merge(state: Mapping[str, Tensor], contributions: Sequence[Contribution], *, alpha: float) -> Tensors:
    """Return the means of the padded A and s B, weighted per module by the norm of the update, and the ranks."""
    merged = {f"{RANK}.{c.enrolment.name}": c.tensors[RANK] for c in contributions}
    for name in [name.removesuffix(f".{DOWN}") for name in state if name.endswith(DOWN)]:
        pairs = [
            (c.tensors[f"{name}.{DOWN}"], c.tensors[f"{name}.{UP}"] * (alpha / c.enrolment.rank))
            for c in contributions
        ]
        # ‖BA‖_F² = tr(BᵀB AAᵀ) needs no dense product
        norms = torch.stack([((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt() for down, up in pairs])
        weights = norms / norms.sum() if norms.sum() > 0 else torch.full_like(norms, 1 / len(norms))
        merged[f"{name}.{DOWN}"] = torch.zeros_like(state[f"{name}.{DOWN}"])
        merged[f"{name}.{UP}"] = torch.zeros_like(state[f"{name}.{UP}"])
        for weight, (down, up) in zip(weights, pairs, strict=True):
            merged[f"{name}.{DOWN}"][: len(down)] += weight * down
            merged[f"{name}.{UP}"][:, : up.shape[1]] += weight * up
    return merged


def sends(enrolment: Enrolment) -> Spec:
    """Return names, shapes and types of a client's update."""
    return shapes(enrolment) | {RANK: ((1,), "int32")}


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, alpha: float, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `flexlora.build`."""
    method = GroupRule(
        name="hetlora",
        together=same_model,
        alone="no other client has this model: same as local",
        sends=sends,
        start=lambda group, seed: common_start(group, model_seed(group, seed)),
        adapted_model=HetLoraAdaptedModel,
        merge=partial(merge, alpha=alpha),
        fit=partial(fit, alpha=alpha),
        receives=shapes,
    )
    return Grouped(method, enrolments, alpha=alpha, **options)
