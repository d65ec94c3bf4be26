"""FedIT (arXiv 2305.05644): federated averaging of both LoRA matrices.

    A ← Σ_k w_k A_k        B ← Σ_k w_k B_k        w_k = n_k / Σ n

The mean of the products B_k A_k is not the product of the means, so the aggregate differs from the mean update. That is
the paper's rule, and the problem that ffa-lora, flexlora and flora address. Clients share within one model and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from h2tune.baselines.groups import Grouped, GroupRule, model_seed, same_model_and_rank
from h2tune.baselines.lora import BOTH, LoraAdaptedModel, common_start, shapes
from h2tune.federation.messages import Enrolment


def averaging(name: str, *, trained: Sequence[str], shared: Sequence[str]) -> GroupRule:
    """Return a method that trains some of the LoRA matrices and averages some, within one model and rank.

    Args:
        name: Its name.
        trained: Kinds that clients train, of `lora_A` and `lora_B`.
        shared: Kinds that are averaged.
    """
    return GroupRule(
        name=name,
        together=same_model_and_rank,
        alone="no other client has this model at this rank: same as local",
        sends=partial(shapes, kinds=shared),
        start=lambda group, seed: common_start(group, model_seed(group, seed), shared),
        adapted_model=partial(LoraAdaptedModel, trained=trained, shared=shared),
    )


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy.

    Args:
        enrolments: The clients.
        shared_rank: Not used; clients share within their own rank.
        options: α, dropout, weighting and seed, as `Grouped` takes them.
    """
    return Grouped(averaging("fedit", trained=BOTH, shared=BOTH), enrolments, **options)
