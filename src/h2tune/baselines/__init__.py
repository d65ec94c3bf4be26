"""Methods to compare with, by name; one file each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from h2tune.errors import H2TuneError, nearest

if TYPE_CHECKING:
    from h2tune.federation.strategy import Strategy
    from h2tune.federation.update import Enrolment

MODULES: dict[str, str] = {}
"""Name of a method → module that builds it; imported only when it is used."""


def build(
    name: str,
    enrolments: Sequence[Enrolment],
    *,
    shared_rank: int,
    alpha: float,
    dropout: float,
    weighting: str,
    seed: int,
) -> Strategy:
    """Return a method by name.

    Raises:
        H2TuneError: No method has that name.
    """
    import importlib

    if name not in MODULES:
        known = ["h2tune", *MODULES]
        raise H2TuneError(
            f"no strategy is called '{name}'{nearest(name, known)}",
            where="server.strategy",
            remedy=f"Known: {', '.join(known)}",
        )
    built: Strategy = importlib.import_module(MODULES[name]).build(
        enrolments, shared_rank=shared_rank, alpha=alpha, dropout=dropout, weighting=weighting, seed=seed
    )
    return built
