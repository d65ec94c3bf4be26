"""Confidence intervals of accuracies on a test set. Pure.

They cover the error from the test set being a sample, and no variation between seeds: `h2tune compare` measures that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def wilson(accuracy: float, examples: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson 1927).

    Args:
        accuracy: Fraction of correct answers, 0–1.
        examples: Size of the test set, at least 1.
    """
    spread = Z**2 / examples
    middle = (accuracy + spread / 2) / (1 + spread)
    half = (
        Z * math.sqrt(max(accuracy * (1 - accuracy), 0) / examples + spread / (4 * examples)) / (1 + spread)
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


def difference(after: float, after_examples: int, before: float, before_examples: int) -> tuple[float, float]:
    """Return the 95 % interval of after − before for two independent test sets (Newcombe 1998, method 10).

    Both are scored on the same examples, so the true interval is usually narrower. The events do not record which
    examples were answered correctly, so the paired interval cannot be computed.
    """
    low, high = wilson(after, after_examples)
    low_before, high_before = wilson(before, before_examples)
    gap = after - before
    return (
        gap - math.hypot(after - low, high_before - before),
        gap + math.hypot(high - after, before - low_before),
    )


def mean_difference(differences: Sequence[tuple[float, tuple[float, float]]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent differences (Zou and Donner 2008, "MOVER").

    Args:
        differences: Each difference with its own interval; at least one.
    """
    number = len(differences)
    mean = sum(gap for gap, _ in differences) / number
    below = math.hypot(*(gap - low for gap, (low, _) in differences)) / number
    above = math.hypot(*(high - gap for gap, (_, high) in differences)) / number
    return mean - below, mean + above
