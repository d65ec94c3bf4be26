"""FFA-LoRA (arXiv 2403.12313): A is frozen and the same on every client; B is averaged.

    A frozen at a common start        B ← Σ_k w_k B_k        w_k = n_k / Σ n

With one A for all, Σ w_k (B_k A) = (Σ w_k B_k) A: the aggregate is exact, with half the bytes of fedit. Clients share
within one model and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from h2tune.baselines.fedit import averaging
from h2tune.baselines.groups import Grouped
from h2tune.baselines.lora import UP
from h2tune.federation.messages import Enrolment


def build(enrolments: Sequence[Enrolment], *, shared_rank: int, **options: Any) -> Grouped:
    """Return the strategy; arguments as in `fedit.build`."""
    return Grouped(averaging("ffa-lora", trained=(UP,), shared=(UP,)), enrolments, **options)
