"""Intervals of accuracies on a test set; pure.

They say how far an accuracy may be off because the test set is a sample. They say nothing of other seeds: for that,
`h2tune compare` runs several.
"""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def wilson(accuracy: float, examples: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson 1927).

    Args:
        accuracy: Fraction that is right, 0–1.
        examples: Size of the test set, at least 1.
    """
    spread = Z**2 / examples
    middle = (accuracy + spread / 2) / (1 + spread)
    half = (
        Z * math.sqrt(max(accuracy * (1 - accuracy), 0) / examples + spread / (4 * examples)) / (1 + spread)
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


def difference(after: float, after_examples: int, before: float, before_examples: int) -> tuple[float, float]:
    """Return the 95 % interval of after − before as if of two test sets (Newcombe 1998, method 10).

    Both are scored on the same examples, which makes the true interval narrower as a rule; which examples were right
    is not in the events, so this is the careful choice.
    """
    low, high = wilson(after, after_examples)
    low_before, high_before = wilson(before, before_examples)
    gap = after - before
    return (
        gap - math.hypot(after - low, high_before - before),
        gap + math.hypot(high - after, before - low_before),
    )
