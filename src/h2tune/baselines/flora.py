"""FLoRA (arXiv 2409.05976): stack the factors instead of averaging them; the aggregate is exact for any ranks.

    A = [A_1; …; A_K]        B = [w_1 s_1 B_1, …, w_K s_K B_K]        W ← W + B A = W + Σ_k w_k s_k B_k A_k

with w_k = n_k / Σ n and s_k = α / r_k, LoRA's scale. Every round starts with a fresh A_k and B_k = 0 on top. Clients
share within one model.

The stack is stored as a second, frozen adapter of growing rank, as the base weights are shared by several clients and
must not change; the function is the same. A client receives only the part that was stacked since its last update, and
exports one LoRA adapter of the total rank. Clients that missed a round have zeros in the stack, so its size is known.
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
"""Prefix in the server's state of the stack's rank at a client's last update."""


def fit(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return the whole stack; {} before the first round."""
    return {name: tensor for name, tensor in state.items() if name.endswith((DOWN, UP))}


def news(state: Mapping[str, Tensor], enrolment: Enrolment) -> Tensors:
    """Return the part of the stack that the client does not have yet, and the rank at which it starts."""
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
    clients: Sequence[Enrolment],
    alpha: float,
) -> Tensors:
    """Return the stack with this round's part appended, as rows of A and columns of B.

    Args:
        state: The stack before the round; A (n, d_in) and B (d_out, n).
        contributions: The clients' updates.
        clients: All clients, in the order of the stack.
        alpha: LoRA's α.
    """
    sent = {c.enrolment.name: c for c in contributions}
    group = [c for c in clients if same_model(c) == same_model(contributions[0].enrolment)]
    stack: dict[str, list[Tensor]] = {n: [t] for n, t in state.items() if n.endswith((DOWN, UP))}
    held = next((t[0].shape[0] for n, t in stack.items() if n.endswith(DOWN)), 0)
    for client in group:
        contribution = sent.get(client.name)
        for name, (shape, _) in shapes(client).items():
            part = contribution.tensors[name] if contribution else torch.zeros(shape)
            if contribution and name.endswith(UP):
                part = contribution.weight * alpha / client.rank * part
            stack.setdefault(name, []).append(part)
    merged = {n: torch.cat(parts, dim=0 if n.endswith(DOWN) else 1) for n, parts in stack.items()}
    seen = {n: t for n, t in state.items() if n.startswith(SEEN)}
    return merged | seen | {SEEN + name: torch.tensor([held], dtype=torch.int32) for name in sent}


def receives(enrolment: Enrolment, *, clients: Sequence[Enrolment]) -> Spec:
    """Return names and shapes of the download of a client that took part in the previous round."""
    rank = sum(c.rank for c in clients if same_model(c) == same_model(enrolment))
    return shapes(enrolment, rank=rank) | {OFFSET: ((1,), "int32")}


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, alpha: float, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `flexlora.build`."""
    clients = sorted(enrolments, key=lambda enrolment: enrolment.name)
    method = GroupRule(
        name="flora",
        together=same_model,
        alone="no other client has this model: same as local",
        sends=shapes,
        start=lambda group, seed: {},
        adapted_model=FloraAdaptedModel,
        merge=partial(merge, clients=clients, alpha=alpha),
        fit=fit,
        news=news,
        receives=partial(receives, clients=clients),
    )
    return Grouped(method, enrolments, alpha=alpha, **options)
