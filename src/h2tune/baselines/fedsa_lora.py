"""FedSA-LoRA (arXiv 2410.01463): A is averaged, as it learns general knowledge; B is specific to a client and private.

    A ← Σ_k w_k A_k        B_k private        w_k = n_k / Σ n

Both are trained. Clients share within one model and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.fedit import averaging
from h2tune.baselines.groups import Grouped
from h2tune.baselines.lora import BOTH, DOWN
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `fedit.build`."""
    return Grouped(averaging("fedsa-lora", trained=BOTH, shared=(DOWN,)), enrolments, **options)
