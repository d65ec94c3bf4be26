"""Training, validation and test examples are taken from pools without a text on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from h2tune.errors import H2TuneError
from h2tune.tasks.splits import split
from h2tune.tasks.task import Example, Pools, Splits


def examples(n: int, prefix: str = "row") -> list[Example]:
    return [Example(f"{prefix} {i}", " a", None, f"{prefix} {i}") for i in range(n)]


def take(pools: Pools, **changes: Any) -> Splits:
    options: dict[str, Any] = {
        "train": 20,
        "validation": 5,
        "test": 10,
        "seed": 0,
        "part": (0, 1),
        "where": "t",
    }
    return split(pools, **{**options, **changes})


def test_splits_are_disjoint_and_repeatable() -> None:
    pools = Pools(examples(100))
    splits = take(pools)
    parts = [set(splits.train), set(splits.validation), set(splits.test)]
    assert [len(part) for part in parts] == [20, 5, 10]
    assert len(set.union(*parts)) == 35
    assert splits == take(Pools(examples(100)[::-1]))  # the order of the rows means nothing


def test_test_set_is_the_same_whatever_else_is_asked_for() -> None:
    pools = Pools(examples(100))
    first = take(pools)
    for changes in ({"seed": 1}, {"train": 50}, {"validation": 0}, {"part": (1, 2)}):
        assert take(pools, **changes).test == first.test
    assert take(pools, test=5).test == first.test[:5]
    assert set(take(pools, seed=1).train) != set(first.train)


def test_smaller_training_set_begins_the_larger_one() -> None:
    pools = Pools(examples(100))
    assert take(pools, train=10).train == take(pools).train[:10]


def test_a_larger_test_set_later_holds_nothing_that_was_trained_on() -> None:
    pools = Pools(examples(100))
    trained = {*take(pools, train=70, test=1).train}
    assert not trained & {*take(pools, test=20).test}


def test_parts_of_all_seeds_are_disjoint() -> None:
    pools = Pools(examples(100))
    first = take(pools, part=(0, 3), seed=0)
    other = take(pools, part=(1, 3), seed=5)
    assert not {*first.train, *first.validation} & {*other.train, *other.validation}
    with pytest.raises(H2TuneError, match="part 3 of 3"):
        take(pools, part=(3, 3))


def test_same_text_never_on_both_sides() -> None:
    doubled = [Example(f"Row  {e.prompt[4:]} ".upper(), " b", None, "") for e in examples(30)]
    splits = take(Pools(examples(30) + doubled), train=19, validation=5, test=6)
    folded = [
        " ".join(e.prompt.casefold().split()) for e in (*splits.train, *splits.validation, *splits.test)
    ]
    assert len(set(folded)) == len(folded) == 30

    own_test = take(Pools(examples(30), test=doubled[:10]), train=15, validation=5, test=10)
    keys = {e.prompt.casefold().split()[1] for e in own_test.test}
    assert not keys & {e.prompt.split()[1] for e in (*own_test.train, *own_test.validation)}
    both = Pools(examples(30), validation=examples(12), test=examples(5))
    splits = take(both, train=18, validation=7, test=5)
    assert len({*splits.train, *splits.validation, *splits.test}) == 30


def test_too_few_examples_say_how_many_there_are() -> None:
    with pytest.raises(H2TuneError, match=r"films: 90 train examples requested, 75 available"):
        take(Pools(examples(100)), train=90, where="films")
    with pytest.raises(H2TuneError, match=r"11 test examples requested, 10 available"):
        take(Pools(examples(100), test=examples(10, "test")), test=11)
    with pytest.raises(H2TuneError, match=r"available in part 0 of 4"):
        take(Pools(examples(100)), part=(0, 4))
