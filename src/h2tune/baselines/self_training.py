"""Self-training: plain LoRA, and the client's own predictions on the public texts as a teacher; nothing shared.

What a consensus must beat at equal passes: the same public texts, the same batches, equation (14) with W = W_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.groups import Grouped
from h2tune.baselines.local import by_itself
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `local.build`."""
    return by_itself("self-training", enrolments, **options)
