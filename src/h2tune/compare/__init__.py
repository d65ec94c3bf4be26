"""Compare methods on the same seeds: paired differences with intervals, resumable, in ordinary run folders."""

from h2tune.compare.compare import compare
from h2tune.compare.comparison import Comparison

__all__ = ["Comparison", "compare"]
