"""Which phase an optimiser step is in, and which examples it sees; pure."""

from __future__ import annotations

from typing import Literal

import numpy as np

from h2tune.seeds import derive

Alternation = Literal["step", "interleave", "joint"]
Phase = Literal["shared", "specific", "joint"]


def phase_of(step: int, alternation: Alternation, before: int = 0) -> Phase:
    """Return the phase of an optimiser step.

    `"step"` and `"interleave"` take the phases in turn; they differ in the examples (`draw`). `"step"` starts every
    round with the shared phase, for a batch's two steps belong together; `"interleave"` goes on where it stopped, so
    that an odd number of steps gives both phases the same in the end.

    Args:
        step: Optimiser steps of this round before this one.
        alternation: How the phases take turns.
        before: Optimiser steps of earlier rounds.
    """
    if alternation == "joint":
        return "joint"
    turn = step + before if alternation == "interleave" else step
    return "shared" if turn % 2 == 0 else "specific"


def optimiser_steps(local_steps: int, alternation: Alternation) -> int:
    """Return how many optimiser steps `local_steps` take: twice as many when both phases see every batch."""
    return 2 * local_steps if alternation == "step" else local_steps


def draw(
    examples: int, batch: int, first: int, local_steps: int, alternation: Alternation, seed: int
) -> list[int]:
    """Return the indices of the examples that a client's optimiser steps see, one after the other.

    The client reads an endless row of shuffled passes over its data; local step s reads the s-th piece of `batch`
    examples. A round thus goes on where the last one stopped, and any round can be repeated by itself.

    Args:
        examples: Number of the client's examples.
        batch: Examples of one local step (all micro-batches and devices together).
        first: Local steps before this round.
        local_steps: Local steps of this round.
        alternation: With `"step"` every batch comes twice, once for each phase.
        seed: The client's seed.
    """
    passes: dict[int, np.ndarray] = {}

    def at(position: int) -> int:
        number, offset = divmod(position, examples)
        if number not in passes:
            passes[number] = np.random.default_rng(derive(seed, "pass", number)).permutation(examples)
        return int(passes[number][offset])

    indices: list[int] = []
    for step in range(first, first + local_steps):
        group = [at(position) for position in range(step * batch, (step + 1) * batch)]
        indices += group * (2 if alternation == "step" else 1)
    return indices


def mixed(own: list[int], public: list[int], batch: int, public_batch: int, accumulation: int) -> list[int]:
    """Return the order of own and public rows, so that every micro-batch has its part of both.

    Args:
        own: Indices of own rows, step after step.
        public: Indices of public rows, step after step.
        batch: Own rows of a step.
        public_batch: Public rows of a step.
        accumulation: Micro-batches of a step; divides both.
    """
    order: list[int] = []
    some, others = batch // accumulation, public_batch // accumulation
    for piece in range(len(own) // some):
        order += own[piece * some : (piece + 1) * some]
        order += public[piece * others : (piece + 1) * others]
    return order
