"""Co-LoRA (arXiv 2506.11024): across models, only matrices whose size is independent of the model are shared.

    y = W x + (α / r) · B (P A x + q)        P (r, r) and q (r) trained and shared, A and B frozen

The blocks of every model are divided into N equal parts. The last block of each part has P and q, which are averaged
over all clients with that role there; the other blocks have plain, private LoRA.

Deviations. The paper aligns A and B across models by canonical correlation on public data, which a federation here does
not have: A has orthonormal rows and B orthonormal columns, drawn from the seed. N is 4, or the depth of the shallowest
model if that is less. The paper has one rank for all clients: here a client of rank r shares the leading r × r block,
and each entry is averaged over the clients that have it. The weights are w_k = n_k / Σ n; the paper's relevance of
tasks (RELA) is a separate method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from h2tune.adapter.roles import find_roles
from h2tune.baselines.groups import Contribution, Grouped, GroupRule
from h2tune.baselines.middle import MIDDLE, OFFSET, MiddleAdaptedModel
from h2tune.federation.messages import Enrolment, Spec, Tensors
from h2tune.seeds import generator

PARTS = 4
"""N"""


def shared_blocks(depth: int, parts: int) -> dict[int, int]:
    """Return the last block of each part of a model → the part's number."""
    return {(part + 1) * depth // parts - 1: part for part in range(parts)}


def sends(enrolment: Enrolment, *, parts: int) -> Spec:
    """Return names and shapes of P and q, by role and part."""
    spec: Spec = {}
    r = enrolment.rank
    last = shared_blocks(enrolment.depth, parts)
    for role, blocks in enrolment.roles.items():
        for block in last.keys() & set(blocks):
            spec[f"{role}.{last[block]}.{MIDDLE}"] = ((r, r), "float32")
            spec[f"{role}.{last[block]}.{OFFSET}"] = ((r,), "float32")
    return spec


def start(group: Sequence[Enrolment], seed: int, *, parts: int) -> Tensors:
    """Return zeros of the largest rank, for every tensor of any client."""
    rank = max(enrolment.rank for enrolment in group)
    names = {name: len(shape) for e in group for name, (shape, _) in sends(e, parts=parts).items()}
    return {name: torch.zeros([rank] * axes) for name, axes in sorted(names.items())}


def fit(state: Mapping[str, Tensor], enrolment: Enrolment, *, parts: int) -> Tensors:
    """Return the leading block of each of the client's tensors."""
    return {
        name: state[name][tuple(slice(size) for size in shape)]
        for name, (shape, _) in sends(enrolment, parts=parts).items()
    }


def merge(state: Mapping[str, Tensor], contributions: Sequence[Contribution]) -> Tensors:
    """Return for each entry the weighted mean over the clients that sent it; other entries are unchanged."""
    merged = {}
    for name, before in state.items():
        total, weight = torch.zeros_like(before), torch.zeros_like(before)
        for contribution in contributions:
            if (tensor := contribution.tensors.get(name)) is not None:
                leading = tuple(slice(size) for size in tensor.shape)
                total[leading] += contribution.weight * tensor
                weight[leading] += contribution.weight
        merged[name] = torch.where(weight > 0, total / weight.clamp(min=1e-12), before)
    return merged


def adapted_model(
    base: PreTrainedModel, enrolment: Enrolment, *, parts: int, seed: int, **options: Any
) -> MiddleAdaptedModel:
    """Return the adapted model: P and q in the last block of each part, plain LoRA in the others."""
    last = shared_blocks(enrolment.depth, parts)
    stems = {p.module: f"{p.role}.{last[p.block]}" for p in find_roles(base) if p.block in last}

    def frame(width: int, rank: int, *words: object) -> Tensor:
        drawn = torch.randn(width, rank, generator=generator(seed, "co-lora", *words))
        return torch.linalg.qr(drawn).Q

    def frames(module: str, layer: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
        d_in, d_out = enrolment.modules[module]
        return frame(d_in, rank, module, "down").T.contiguous(), frame(d_out, rank, module, "up")

    return MiddleAdaptedModel(base, enrolment, frames=frames, stems=stems, offset=True, seed=seed, **options)


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `fedit.build`."""
    parts = min(PARTS, *(enrolment.depth for enrolment in enrolments))
    method = GroupRule(
        name="co-lora",
        together=lambda enrolment: "everyone",
        alone="no other client: same as local",
        sends=partial(sends, parts=parts),
        start=partial(start, parts=parts),
        adapted_model=partial(adapted_model, parts=parts),
        merge=merge,
        fit=partial(fit, parts=parts),
    )
    return Grouped(method, enrolments, **options)
