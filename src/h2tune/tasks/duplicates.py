"""Near duplicates: a text that differs from a training text in a few words must not be tested on."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence


def without_near_duplicates(texts: Sequence[str], *, words: int = 4, share: float = 0.5) -> list[int]:
    """Return the indices of the texts that are not near duplicates of an earlier one.

    Two texts are near duplicates if the fraction `share` of the n-grams of the shorter one occurs in the other, for
    n = `words`; case and punctuation are ignored.

    Args:
        texts: The texts; of two near duplicates the first stays.
        words: Words in an n-gram.
        share: Fraction of n-grams, 0 to 1.
    """
    return list(_distinct(tuple(texts), words, share))


@functools.lru_cache(maxsize=4)  # every client of a task, and an anchored basis, reads the same pool
def _distinct(texts: tuple[str, ...], words: int, share: float) -> tuple[int, ...]:
    sizes: dict[int, int] = {}
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        ngrams = _ngrams(text, words)
        common = Counter(earlier for ngram in ngrams for earlier in holders.get(ngram, ()))
        if any(count >= share * min(len(ngrams), sizes[earlier]) for earlier, count in common.items()):
            continue
        sizes[index] = len(ngrams)
        for ngram in ngrams:
            holders[ngram].append(index)
    return tuple(sizes)


def _ngrams(text: str, words: int) -> set[tuple[str, ...]]:
    tokens = re.findall(r"\w+", text.casefold())
    return {tuple(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))}
