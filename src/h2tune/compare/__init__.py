"""Compare methods on the same seeds: paired differences with their intervals, resumable, from ordinary run folders."""

from h2tune.compare.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
