"""FedMD (arXiv 1910.03581): the mean of all clients' predictions on the public texts as a teacher.

    q = softmax(β · standardise(mean_j P_j) + b)

Clients with the same labels share. Deviation: predictions are those of a linear head on frozen features, exchanged once
before the first round, as h2tune's directions are, so that the two differ in what travels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.groups import Grouped
from h2tune.baselines.local import by_itself
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `local.build`."""
    return by_itself("fedmd", enrolments, **options)
