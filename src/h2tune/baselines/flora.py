"""FLoRA (arXiv 2409.05976): stack the factors instead of averaging them; the aggregate is exact for any ranks.

    A = [A_1; …; A_K]        B = [w_1 s_1 B_1, …, w_K s_K B_K]        W ← W + B A = W + Σ_k w_k s_k B_k A_k

with w_k = n_k / Σ n and s_k = α / r_k, LoRA's scale. Every round starts with a fresh A_k and B_k = 0 on top. Clients
share within one model.

What has been stacked is kept as a second, frozen adapter of growing rank beside the weights, which several clients use
and none may change; that is the same function. A client gets only what was stacked since it last sent something. It
exports as one LoRA of the whole rank. Clients that were not there leave zeros in the stack, so its size is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from h2tune.baselines.groups import Contribution, Grouped, GroupRule, same_model
from h2tune.baselines.lora import DOWN, UP, shapes
from h2tune.baselines.stacking import OFFSET, FloraAdaptedModel
from h2tune.federation.messages import Enrolment, Spec, Tensors

SEEN = "seen."
"""Prefix of the rank of the stack that a client held when it last sent something, in the server's state."""


def fit(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return the whole stack; {} before the first."""
    return {name: tensor for name, tensor in state.items() if name.endswith((DOWN, UP))}


def news(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return the part of the stack that the client has not seen, and the rank at which it starts."""
    stack = fit(state, enrolment)
    if not stack:
        return {}
    offset = state.get(SEEN + enrolment.name, torch.zeros(1, dtype=torch.int32))
    first = int(offset)
    return {n: t[first:] if n.endswith(DOWN) else t[:, first:] for n, t in stack.items()} | {OFFSET: offset}


def merge(
    state: Mapping[str, Tensor],
    contributions: Sequence[Contribution],
    *,
    members: Sequence[Enrolment],
    alpha: float,
) -> Tensors:
    """Return the stack with this round's part below (A) and beside (B) it.

    Args:
        state: The stack before; A (n, d_in) and B (d_out, n).
        contributions: What was sent.
        members: All clients, in the order of the stack.
        alpha: LoRA's α.
    """
    sent = {c.enrolment.name: c for c in contributions}
    group = [m for m in members if same_model(m) == same_model(contributions[0].enrolment)]
    stack: dict[str, list[Tensor]] = {n: [t] for n, t in state.items() if n.endswith((DOWN, UP))}
    held = next((t[0].shape[0] for n, t in stack.items() if n.endswith(DOWN)), 0)
    for member in group:
        contribution = sent.get(member.name)
        for name, (shape, _) in shapes(member).items():
            part = contribution.tensors[name] if contribution else torch.zeros(shape)
            if contribution and name.endswith(UP):
                part = contribution.weight * alpha / member.rank * part
            stack.setdefault(name, []).append(part)
    merged = {n: torch.cat(parts, dim=0 if n.endswith(DOWN) else 1) for n, parts in stack.items()}
    seen = {n: t for n, t in state.items() if n.startswith(SEEN)}
    return merged | seen | {SEEN + client: torch.tensor([held], dtype=torch.int32) for client in sent}


def receives(enrolment: Enrolment, *, members: Sequence[Enrolment]) -> Spec:
    """Return what a client gets that took part in the round before."""
    rank = sum(m.rank for m in members if same_model(m) == same_model(enrolment))
    return shapes(enrolment, rank=rank) | {OFFSET: ((1,), "int32")}


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, alpha: float, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `flexlora.build`."""
    members = sorted(enrolments, key=lambda enrolment: enrolment.name)
    method = GroupRule(
        name="flora",
        together=same_model,
        alone="no other client has this model: same as local",
        sends=shapes,
        start=lambda group, seed: {},
        adapted_model=FloraAdaptedModel,
        merge=partial(merge, members=members, alpha=alpha),
        fit=fit,
        news=news,
        receives=partial(receives, members=members),
    )
    return Grouped(method, enrolments, alpha=alpha, **options)
