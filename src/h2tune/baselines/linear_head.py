"""A linear head on frozen features: every client alone, its base model as it is, the head trained on its own labels.

What a client has without any adapter. With few labels it is often better than LoRA alone (Kumar et al., arXiv
2202.10054), so that a federation must be compared with it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from h2tune.baselines.groups import Grouped
from h2tune.baselines.local import by_itself
from h2tune.baselines.lora import LoraAdaptedModel
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `local.build`."""
    return by_itself(
        "linear-head", enrolments, adapted_model=partial(LoraAdaptedModel, trained=()), **options
    )
