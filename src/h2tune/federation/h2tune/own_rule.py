"""A rule of the user's own that combines the clients' updates of T into one step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.functional.alignment import TINY

OwnRule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(N, C, w) → the step for G before η (D, roles, R, R).

N and C of equation (4) are the clients' increments and coverages (clients, D, roles, R, R), zero where a client has
nothing; w are their weights (clients). Clients are sorted by name. An entry that nobody covers does not change.
"""


def own_step(
    rule: OwnRule,
    learned: Tensor,
    coverage: Tensor,
    weights: Tensor,
) -> Tensor:
    """Return the step that a rule computes, zero where no client covers G; shapes as in `OwnRule`.

    Raises:
        H2TuneError: What the rule returns is no step for G.
    """
    covered = (coverage > TINY).any(0)
    step = rule(learned, coverage, weights)
    if not isinstance(step, Tensor) or step.shape != learned.shape[1:]:
        found = tuple(step.shape) if isinstance(step, Tensor) else type(step).__name__
        raise H2TuneError(
            f"returned {found}, not a tensor of the shape {tuple(learned.shape[1:])}",
            where="server.aggregation",
            remedy="Return one step for all clients: a tensor (D, roles, R, R)",
        )
    step = torch.where(covered, step.detach().to(learned), 0.0)
    if not step.isfinite().all():
        raise H2TuneError(
            "returned values that are not finite",
            where="server.aggregation",
            remedy="An entry that few clients cover has zeros: do not divide by its coverage alone",
        )
    return step
