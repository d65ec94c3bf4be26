"""Split the examples of a task: disjoint sets, also where a prompt occurs more than once."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from typing import Literal

from h2tune.errors import H2TuneError, counted
from h2tune.tasks.task import Example, Pools, Splits

Amount = int | float | Literal["all"]
"""A number of examples, a share of the rows between 0 and 1, or all."""
TEST_SHARE = 5  # one in five examples of a task without a test set is never trained on


def split(
    pools: Pools,
    *,
    train: Amount,
    validation: Amount,
    test: Amount,
    seed: int,
    part: tuple[int, int],
    where: str,
) -> Splits:
    """Split `pools` as `load.load_task` says; `where` names the task in errors.

    Raises:
        H2TuneError: There are too few examples, or there is no such part.
    """
    k, n = part
    if not 0 <= k < n:
        raise H2TuneError(f"part {k} of {n} does not exist", where=where, remedy=f"Count from 0 to {n - 1}")
    pool = ordered(pools.train)
    rows, repeated = len(pool), len(pools.train) - len(pool)
    pool, test_pool, tested = _test_first(pool, pools, test)
    pool = without(pool, test_pool)[k::n]
    rng = random.Random(f"{seed}/{where}")  # noqa: S311 - a draw, not a secret
    if pools.validation is None:
        validated = count(validation, rows // n)
        rng.shuffle(pool)
        validation_pool, pool = pool[:validated], pool[validated:]
    else:
        validation_pool = without(ordered(pools.validation), test_pool)
        validated = count(validation, len(validation_pool))
        rng.shuffle(validation_pool)
        pool = without(pool, validation_pool)
        rng.shuffle(pool)
    if train == "all" and not pool:
        raise H2TuneError(
            f"no row is left to train on: all {rows} are tested or validated on",
            where=where,
            remedy="Give more rows, or a smaller data.test",
        )
    trained = count(train, len(pool))
    wanted = {"test": tested, "validation": validated, "train": trained}
    available = {"test": len(test_pool), "validation": len(validation_pool), "train": len(pool)}
    _check_enough(wanted, available, pools, repeated, part, where)
    parts = tuple(pool[:trained]), tuple(validation_pool[:validated]), tuple(test_pool[:tested])
    return Splits(*parts, unused=len(pool) - trained, repeated=repeated)


def _test_first(pool: list[Example], pools: Pools, test: Amount) -> tuple[list[Example], list[Example], int]:
    """Return what is left of a pool after the test set, what the test set is drawn from, and its size."""
    if pools.test is not None:
        test_pool = ordered(pools.test)
        return pool, test_pool, count(test, len(test_pool))
    kept = reserved(test, len(pool))
    return pool[kept:], pool[:kept], count(test, len(pool))


def _check_enough(
    wanted: Mapping[str, int],
    available: Mapping[str, int],
    pools: Pools,
    repeated: int,
    part: tuple[int, int],
    where: str,
) -> None:
    """Refuse a split that is larger than the examples it is drawn from."""
    k, n = part
    for name, number in wanted.items():
        if number <= available[name]:
            continue
        share = f" in part {k} of {n}" if n > 1 else ""
        dropped = (
            f"; of {len(pools.train)} rows, {repeated} repeat a prompt and do not count" if repeated else ""
        )
        raise H2TuneError(
            f"{counted(number, f'{name} example')} requested, {available[name]} available{share}{dropped}",
            where=where,
            remedy="Request fewer train, validation or test examples, or give more data",
        )


def reserved(test: Amount, rows: int) -> int:
    """Return how many rows are never trained on, so that a larger test set later has none that was."""
    return count(test, rows) if isinstance(test, float) else max(count(test, rows), rows // TEST_SHARE)


def count(wanted: Amount, available: int) -> int:
    """Return a number of examples; of a share at least one."""
    if isinstance(wanted, float):
        return max(1, round(wanted * available))
    return available if wanted == "all" else wanted


def _key(example: Example) -> str:
    return " ".join(example.prompt.casefold().split())


def ordered(examples: Iterable[Example]) -> list[Example]:
    """Return the examples without repeated prompts (case and spacing ignored), in an arbitrary but fixed order.

    They are sorted by the hash of the prompt, so the order does not depend on the order of the rows in the file.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_key(example), example)
    return [first[key] for key in sorted(first, key=lambda key: hashlib.sha256(key.encode()).digest())]


def without(examples: list[Example], others: list[Example]) -> list[Example]:
    keys = {_key(example) for example in others}
    return [example for example in examples if _key(example) not in keys]
