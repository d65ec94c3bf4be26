"""How many updates a robust rule needs to bear hostile ones; pure, and without torch, as the configuration asks it."""

from __future__ import annotations

from typing import Literal

Rule = Literal["mean", "clip", "median", "trimmed_mean", "krum"]
"""How what clients learned is brought together; all but the first are robust."""


def updates_needed(rule: Rule, hostile: int) -> int:
    """Return the least number of updates in a round: 1 for `mean`, 2 f + 3 for `krum`, 2 f + 1 for the others.

    With 2 f + 1 the honest are the majority. Krum's bound is that of Blanchard et al. 2017 (NeurIPS), Proposition 1:
    the n − f − 2 nearest of any update are more than the f − 1 others of a hostile one.

    Args:
        rule: The rule.
        hostile: f, the number of hostile clients assumed.
    """
    if rule == "mean":
        return 1
    return 2 * hostile + (3 if rule == "krum" else 1)
