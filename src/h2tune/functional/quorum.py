"""Number of updates that a round needs; pure, and without torch, since the configuration imports it."""

from __future__ import annotations

import math
from typing import Literal

Rule = Literal["mean", "clip", "median", "trimmed_mean", "nnm", "krum"]
"""How updates are aggregated; all but the first are robust."""

Teaching = Literal["none", "own", "directions", "predictions", "moments"]
"""What clients exchange about the public texts before the first round."""

Increments = Literal["mean", "sum", "relevance", "none"]
"""Whether G moves by the mean of the clients' steps, equation (5), by their sum, or for each client by a sum
weighted by relevance, equation (10); with "none" T stays private, and nothing is sent in rounds."""


def updates_needed(rule: str, hostile: int) -> int:
    """Return the least number of updates in a round: 1 for `mean`, 2 f + 3 for `krum`, 2 f + 1 for the others.

    With 2 f + 1 updates the honest are the majority. Krum's bound is Proposition 1 of Blanchard et al. 2017 (NeurIPS):
    the n − f − 2 nearest of any update are more than the f − 1 others of a hostile one.

    Args:
        rule: The rule, or a function of the user's own.
        hostile: f, the number of hostile clients assumed.
    """
    if rule == "mean":
        return 1
    return 2 * hostile + (3 if rule == "krum" else 1)


SECURE_CLIENTS = (3, 100)
"""Least and most clients of a federation with secure aggregation."""


def drawn_clients(clients: int, participation: float, min_clients: int) -> int:
    """Return how many clients take part in a round."""
    return max(min_clients, math.ceil(participation * clients))


def threshold_needed(drawn: int) -> int:
    """Return the least threshold t of secure aggregation: two thirds of the drawn clients, rounded up.

    Bonawitz et al. 2017 (CCS), section 6.2: a server that names different survivors to different clients learns nothing
    if t > (n + colluding clients) / 2; two thirds tolerate the collusion of a third of the clients.
    """
    return -(-2 * drawn // 3)


def colluders_tolerated(drawn: int, threshold: int) -> int:
    """Return with how many clients k a server may be in league and yet learn no single update.

    2 t > n + k: it can name different survivors to two groups. t − k ≥ 2: it takes the updates of the k off the sum.

    Args:
        drawn: n, the clients of a round.
        threshold: t, the updates that a round needs.
    """
    return min(threshold - 2, 2 * threshold - drawn - 1)
