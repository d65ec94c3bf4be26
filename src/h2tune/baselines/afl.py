"""AFL (arXiv 2405.16240): sums of second and first moments make one linear classifier, whoever holds the data.

    W = (Σ_i X_iᵀX_i + λ I)⁻¹ Σ_i X_iᵀY_i        X_i: the client's texts in the common coordinates

The classifier teaches each client on the public texts. Deviation: the paper has one frozen model and no adapter; here
each client reads its texts in the common coordinates, and trains plain LoRA with the classifier as its teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.groups import Grouped
from h2tune.baselines.local import by_itself
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `local.build`."""
    return by_itself("afl", enrolments, **options)
