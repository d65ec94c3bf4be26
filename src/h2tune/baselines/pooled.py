"""The oracle: every client does what self-training does, with the labels of all clients that have the same labels.

No federation can do this, as data do not leave their owners; it says how much there is to gain. It has the public texts
and the passes of the methods that teach: with a few hundred labels and no teacher, LoRA falls behind a linear head on
frozen features, which is no upper bound. `runs.plan` gives the clients their pooled examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.groups import Grouped
from h2tune.baselines.local import by_itself
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `local.build`."""
    return by_itself("pooled", enrolments, **options)
