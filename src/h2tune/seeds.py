"""Seeds: every random choice has its own generator, derived from the run's seed and the purpose of the choice."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *words: object) -> int:
    """Return a 63-bit seed for the purpose that `words` name; the same on every machine and in every process."""
    text = "\x1f".join([str(seed), *map(str, words)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *words: object) -> torch.Generator:
    """Return a CPU generator for the purpose that `words` name."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *words))


@contextlib.contextmanager
def isolated(seed: int, *words: object) -> Iterator[None]:
    """Seed the global generators for a block, then restore their states.

    Libraries (dropout, the Trainer) draw from the global generators. Within the block their draws depend on the seed
    alone; after it the caller's own draws continue as if the block had not run.
    """
    import numpy
    import torch

    derived = derive(seed, *words)
    states = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - saved, not drawn from
    with torch.random.fork_rng():
        random.seed(derived)
        numpy.random.seed(derived % 2**32)  # noqa: NPY002
        torch.manual_seed(derived)
        try:
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])  # noqa: NPY002
