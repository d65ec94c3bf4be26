"""Load a task by name or from the user's file, and split its examples."""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from h2tune.errors import H2TuneError, counted, nearest
from h2tune.own_code import is_reference
from h2tune.scoring.scorers import scorer_of
from h2tune.tasks import MODULES
from h2tune.tasks.own_task import OwnTask
from h2tune.tasks.row_files import DELIMITERS, LINES
from h2tune.tasks.task import Example, Pools, Splits, Task

Amount = int | float | Literal["all"]
"""A number of examples, a share of the rows between 0 and 1, or all."""
TEST_SHARE = 5  # one in five examples of a task without a test set is never trained on


def describe_task(task: str | OwnTask, *, base: Path | None = None) -> Task:
    """Return the description of a task without loading or downloading its examples.

    Args:
        task: Name of a built-in task, or the description of the user's own file.
        base: Folder from which relative paths in `task` start.

    Raises:
        H2TuneError: No built-in task has that name, or the user's own scorer cannot be loaded.
    """
    if not isinstance(task, str):
        own = task.describe()
        if is_reference(own.scorer):
            scorer_of(own.scorer)  # refused here rather than after training
        return own
    if task not in MODULES:
        is_file = "/" in task or task.endswith((".json", ".parquet", *LINES, *DELIMITERS))
        raise H2TuneError(
            f"no task is called '{task}'{'' if is_file else nearest(task, list(MODULES))}",
            where="task",
            remedy="For a file of your own give a table: "
            'task = { file = "rows.jsonl", prompt = "{question}", answer = "answer" }'
            if is_file
            else f"Known tasks: {', '.join(MODULES)}",
        )
    described: Task = importlib.import_module(MODULES[task]).TASKS[task]
    return described


def load_task(
    task: str | OwnTask,
    *,
    train: Amount,
    validation: Amount,
    test: Amount,
    seed: int,
    part: tuple[int, int] = (0, 1),
    base: Path | None = None,
) -> tuple[Task, Splits]:
    """Load a task's examples and split them.

    The splits are not stratified. They are disjoint, also where a text occurs more than once. The test set depends on
    the task and `test` alone; a smaller test set is the beginning of a larger one, and so is a smaller training set of
    the same seed.

    Args:
        task: Name of a built-in task, or the description of the user's own file.
        train: Number of training examples, or "all" that are left.
        validation: Number of validation examples, their share of the rows (below 1), or "all" of their own file.
        test: The same for test examples.
        seed: Seed of the draw of training and validation examples.
        part: (k, n) draws from the k-th of n disjoint parts of the training pool, the same parts for every
            seed: clients with one task and different data.
        base: Folder from which relative paths in `task` start.

    Raises:
        H2TuneError: Unknown task, data that are missing or malformed, or too few examples.
    """
    described = describe_task(task, base=base)
    if isinstance(task, str):
        pools: Pools = importlib.import_module(MODULES[task]).read(described)
    else:
        pools = task.read(base)
        if described.kind == "generate":
            described = replace(described, new_tokens=task.answer_tokens(e.answer for e in pools.train))
    return described, split(
        pools, train=train, validation=validation, test=test, seed=seed, part=part, where=described.name
    )


def unlabelled(task: str, count: int, *, seed: int, test: Amount) -> list[str]:
    """Return training texts of a built-in task without their labels; fewer than `count` if it has no more.

    Args:
        task: Name of the task.
        count: Number of texts.
        seed: Seed of the draw.
        test: Test examples that clients of the task have, as in `load_task`.

    Raises:
        H2TuneError: Unknown task, or data that are missing or malformed.
    """
    described = describe_task(task)
    pools: Pools = importlib.import_module(MODULES[task]).read(described)
    pool = _ordered(pools.train)
    least = len(pool) // TEST_SHARE  # of clients with another test set than most
    kept = least if test == "all" else max(_reserved(test, len(pool)), least)
    reserved = pool[:kept] if pools.test is None else _ordered(pools.test)
    pool = _without(pool, reserved)
    random.Random(f"{seed}/{task}").shuffle(pool)  # noqa: S311 - a draw, not a secret
    return [example.text for example in pool[:count]]


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
    """Split `pools` as `load_task` says; `where` names the task in errors."""
    k, n = part
    if not 0 <= k < n:
        raise H2TuneError(f"part {k} of {n} does not exist", where=where, remedy=f"Count from 0 to {n - 1}")
    pool = _ordered(pools.train)
    repeated = len(pools.train) - len(pool)
    if pools.test is None:
        reserved, rows = _reserved(test, len(pool)), len(pool)
        test = _count(test, rows)
        test_pool, pool = pool[:reserved], pool[reserved:]
    else:
        test_pool = _ordered(pools.test)
        test, rows = _count(test, len(test_pool)), len(pool)
    pool = _without(pool, test_pool)
    pool = pool[k::n]
    rng = random.Random(f"{seed}/{where}")  # noqa: S311 - a draw, not a secret
    if pools.validation is None:
        validation = _count(validation, rows // n)
        rng.shuffle(pool)
        validation_pool, pool = pool[:validation], pool[validation:]
    else:
        validation_pool = _without(_ordered(pools.validation), test_pool)
        validation = _count(validation, len(validation_pool))
        rng.shuffle(validation_pool)
        pool = _without(pool, validation_pool)
        rng.shuffle(pool)
    if train == "all" and not pool:
        raise H2TuneError(
            f"no row is left to train on: all {rows} are tested or validated on",
            where=where,
            remedy="Give more rows, or a smaller data.test",
        )
    train = _count(train, len(pool))
    for name, wanted, available in (
        ("test", test, test_pool),
        ("validation", validation, validation_pool),
        ("train", train, pool),
    ):
        if wanted > len(available):
            share = f" in part {k} of {n}" if n > 1 else ""
            dropped = (
                f"; of {len(pools.train)} rows, {repeated} repeat a prompt and do not count"
                if repeated
                else ""
            )
            raise H2TuneError(
                f"{counted(wanted, f'{name} example')} requested, {len(available)} available{share}{dropped}",
                where=where,
                remedy="Request fewer train, validation or test examples, or give more data",
            )
    parts = tuple(pool[:train]), tuple(validation_pool[:validation]), tuple(test_pool[:test])
    return Splits(*parts, unused=len(pool) - train, repeated=repeated)


def _reserved(test: Amount, rows: int) -> int:
    """Return how many rows are never trained on, so that a larger test set later has none that was."""
    return _count(test, rows) if isinstance(test, float) else max(_count(test, rows), rows // TEST_SHARE)


def _count(wanted: Amount, available: int) -> int:
    """Return a number of examples; of a share at least one."""
    if isinstance(wanted, float):
        return max(1, round(wanted * available))
    return available if wanted == "all" else wanted


def _key(example: Example) -> str:
    return " ".join(example.prompt.casefold().split())


def _ordered(examples: Iterable[Example]) -> list[Example]:
    """Return the examples without repeated prompts (case and spacing ignored), in an arbitrary but fixed order.

    They are sorted by the hash of the prompt, so the order does not depend on the order of the rows in the file.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_key(example), example)
    return [first[key] for key in sorted(first, key=lambda key: hashlib.sha256(key.encode()).digest())]


def _without(examples: list[Example], others: list[Example]) -> list[Example]:
    keys = {_key(example) for example in others}
    return [example for example in examples if _key(example) not in keys]
