"""Exclusion of long-lived objects from garbage collection while rounds run.

The Trainer collects garbage after every round of every client. Scanning the million objects of torch and Transformers
takes half a second, which is longer than a small client trains.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_ACTIVE: list[bool] = []
"""One entry per active `garbage_collection_frozen`; the collector is one per process."""


@contextlib.contextmanager
def garbage_collection_frozen() -> Iterator[None]:
    """Freeze all existing objects, such as imported libraries, in the garbage collector while the block runs."""
    import h2tune.training.trainer  # noqa: F401 - so that the objects of its imports exist and are frozen too

    gc.freeze()
    _ACTIVE.append(True)
    try:
        yield
    finally:
        _ACTIVE.pop()
        gc.unfreeze()


def freeze_new_objects() -> None:
    """Freeze the objects created since: models, examples and events. Does nothing outside the block.

    Otherwise every collection would scan the objects of all clients.
    """
    if _ACTIVE:
        gc.collect()
        gc.freeze()
