"""Every client alone: LoRA (arXiv 2106.09685), nothing shared.

    y = W x + (α / r) · B A x        A, B trained, B = 0 at the start

The reference for federation: the same local steps on the same batches from the same A as every other method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from h2tune.baselines.groups import Grouped, GroupRule
from h2tune.baselines.lora import LoraAdaptedModel
from h2tune.federation.messages import Enrolment


def by_itself(
    name: str,
    enrolments: Sequence[Enrolment],
    *,
    adapted_model: Callable[..., LoraAdaptedModel] = LoraAdaptedModel,
    **options: Any,
) -> Grouped:
    """Return a strategy under which every client trains by itself and no update is shared.

    Args:
        name: Its name.
        enrolments: The clients.
        adapted_model: Builds a client's model; plain LoRA by default.
        options: α, dropout, weighting and seed, as `Grouped` takes them.
    """
    method = GroupRule(
        name=name,
        together=lambda enrolment: enrolment.name,
        alone="",
        sends=lambda enrolment: {},
        start=lambda group, seed: {},
        adapted_model=adapted_model,
        alone_model=adapted_model,
    )
    return Grouped(method, enrolments, **options)


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy.

    Args:
        enrolments: The clients.
        shared_rank: Not needed; every client keeps its rank.
        options: As in `by_itself`.
    """
    return by_itself("local", enrolments, **options)
