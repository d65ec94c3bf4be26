"""Near duplicates: a text that was seen in training, but for a word, must not be tested on."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence


def without_near_duplicates(texts: Sequence[str], *, words: int = 4, share: float = 0.5) -> list[int]:
    """Return the indices of the texts that stay when near duplicates of earlier ones are left out.

    Two texts are near duplicates if `share` of the runs of `words` words of the shorter one are in the other,
    case and punctuation aside.

    Args:
        texts: In an order that decides which of two stays.
        words: Length of a run.
        share: Fraction of runs, 0 to 1.
    """
    return list(_stay(tuple(texts), words, share))


@functools.lru_cache(maxsize=4)  # each client with a task, and an anchored basis, reads the task's pool
def _stay(texts: tuple[str, ...], words: int, share: float) -> tuple[int, ...]:
    sizes: dict[int, int] = {}
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        runs = _runs(text, words)
        common = Counter(kept for run in runs for kept in holders.get(run, ()))
        if any(n >= share * min(len(runs), sizes[kept]) for kept, n in common.items()):
            continue
        sizes[index] = len(runs)
        for run in runs:
            holders[run].append(index)
    return tuple(sizes)


def _runs(text: str, words: int) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.casefold())
    return {tuple(found[i : i + words]) for i in range(max(1, len(found) - words + 1))}
