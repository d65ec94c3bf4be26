"""Properties of splits, for any pool and any sizes that it allows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from h2tune.tasks.load import split
from h2tune.tasks.task import Example, Pools, Splits

WORDS = st.lists(st.text("aAbB \n", min_size=1, max_size=4), min_size=1, max_size=40)


def key(example: Example) -> str:
    return " ".join(example.prompt.casefold().split())


def draw(words: list[str], seed: int, part: tuple[int, int], train: int, test: int) -> Splits | None:
    pool = [Example(word, " x", None, word) for word in words]
    distinct = len({key(example) for example in pool})
    left = distinct - max(test, distinct // 5)
    available = len(range(left)[part[0] :: part[1]])
    if test > distinct or train > available:
        return None
    pools = Pools(pool)
    return split(pools, train=train, validation=0, test=test, seed=seed, part=part, where="t")


@given(WORDS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 2), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_splits(words: list[str], seed: int, other: int, part: int, train: int, test: int) -> None:
    first = draw(words, seed, (part, 3), train, test)
    if first is None:
        return
    keys = [key(example) for example in (*first.train, *first.test)]
    assert len(keys) == len(set(keys)) == train + test
    second = draw(words[::-1], other, ((part + 1) % 3, 3), min(train, 1), test)
    if second is not None:
        assert [key(e) for e in second.test] == [key(e) for e in first.test]
        assert not {key(e) for e in second.train} & {key(e) for e in first.train}
