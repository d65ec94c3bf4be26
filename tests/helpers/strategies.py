"""The h2tune strategy from keyword settings, and its aggregation of updates as they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.messages import Enrolment, Tensors, Update
from h2tune.federation.strategy import Strategy, decoded


def h2tune(enrolments: Sequence[Enrolment], **settings: Any) -> H2Tune:
    """Return the strategy of these settings."""
    return H2Tune(enrolments, H2TuneSettings(**settings))


def aggregate(
    strategy: Strategy[Any], state: Mapping[str, Tensor], updates: Sequence[Update]
) -> tuple[Tensors, dict[str, Any]]:
    """Decode updates and aggregate them, as the round loop does."""
    return strategy.aggregate(state, [decoded(strategy, update) for update in updates])
