"""Properties of splits, for any pool and any sizes that it allows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2tune.errors import H2TuneError
from h2tune.tasks.splits import split
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


# Shares and all


def rows_of(count: int) -> list[Example]:
    return [Example(f"question {i}", " yes", 0, f"question {i}") for i in range(count)]


def sizes(pools: Pools, **changes) -> tuple[int, int, int]:
    options = {
        "train": "all",
        "validation": 0,
        "test": 0.2,
        "seed": 0,
        "part": (0, 1),
        "where": "own",
    } | changes
    found = split(pools, **options)
    texts = [e.text for part in (found.train, found.validation, found.test) for e in part]
    assert len(set(texts)) == len(texts)
    return len(found.train), len(found.validation), len(found.test)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (32, 0, 8)),
        ({"validation": 0.1}, (28, 4, 8)),
        ({"test": 0.5, "validation": 0.25}, (10, 10, 20)),
        ({"test": 0.001}, (39, 0, 1)),
        ({"train": 5}, (5, 0, 8)),
        ({"train": "all", "test": 3}, (32, 0, 3)),  # a fifth is reserved for larger test sets
        ({"part": (1, 2), "validation": 0.1}, (14, 2, 8)),
    ],
)
def test_forty_rows_are_split_by_share(changes, expected):
    assert sizes(Pools(rows_of(40)), **changes) == expected


def test_a_file_of_a_split_s_own_is_all_used():
    more = [Example(f"other {i}", " yes", 0, f"other {i}") for i in range(7)]
    assert sizes(Pools(rows_of(10), test=more), test="all") == (10, 0, 7)
    assert sizes(Pools(rows_of(10), validation=more), validation="all") == (8, 7, 2)


def test_a_share_of_the_test_set_stays_out_of_the_public_texts():
    from h2tune.tasks import load

    pools = Pools(rows_of(50))
    module = type("module", (), {"read": staticmethod(lambda task: pools)})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(load.importlib, "import_module", lambda name: module)
        patched.setattr(load, "describe_task", lambda task: None)
        public = load.unlabelled("tweets", 100, seed=1, test=0.4)
    tested = split(pools, train=1, validation=0, test=0.4, seed=0, part=(0, 1), where="tweets").test
    assert len(public) == 30 and not {e.text for e in tested} & set(public)


@pytest.mark.parametrize("changes", [{"test": "all"}, {"test": 0.5, "validation": 0.5}])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(changes):
    with pytest.raises(H2TuneError, match="no row is left to train on"):
        sizes(Pools(rows_of(10)), **changes)


@pytest.mark.parametrize(("test", "left"), [("all", 40), (0.01, 40), (0.4, 30), (5, 40), (20, 30)])
def test_public_texts_leave_out_a_fifth_at_least(test, left):
    from h2tune.tasks import load

    module = type("module", (), {"read": staticmethod(lambda task: Pools(rows_of(50)))})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(load.importlib, "import_module", lambda name: module)
        patched.setattr(load, "describe_task", lambda task: None)
        assert len(load.unlabelled("tweets", 100, seed=1, test=test)) == left
