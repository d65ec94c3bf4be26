"""Load a task by name or from the user's file."""

from __future__ import annotations

import importlib
import random
from dataclasses import replace
from pathlib import Path

from h2tune.errors import H2TuneError, nearest
from h2tune.own_code import is_reference
from h2tune.scoring.scorers import scorer_of
from h2tune.tasks import MODULES
from h2tune.tasks.own_task import OwnTask
from h2tune.tasks.row_files import DELIMITERS, LINES
from h2tune.tasks.splits import TEST_SHARE, Amount, ordered, reserved, split, without
from h2tune.tasks.task import Pools, Splits, Task


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
    pool = ordered(pools.train)
    least = len(pool) // TEST_SHARE  # of clients with another test set than most
    kept = least if test == "all" else max(reserved(test, len(pool)), least)
    tested = pool[:kept] if pools.test is None else ordered(pools.test)
    pool = without(pool, tested)
    random.Random(f"{seed}/{task}").shuffle(pool)  # noqa: S311 - a draw, not a secret
    return [example.text for example in pool[:count]]
