"""Phase and examples of every optimiser step; pure."""

from __future__ import annotations

from typing import Literal

import numpy as np

from h2tune.seeds import derive

Alternation = Literal["step", "interleave", "joint"]
Phase = Literal["shared", "specific", "joint"]


def phase_of(step: int, alternation: Alternation, before: int = 0) -> Phase:
    """Return the phase of an optimiser step.

    `"step"` and `"interleave"` alternate between the phases; they differ in the examples (`draw`). `"step"` starts
    every round with the shared phase, since the two steps on a batch belong together. `"interleave"` continues where
    the last round stopped, so that both phases get the same number of steps over all rounds.

    Args:
        step: Optimiser steps of this round before this one.
        alternation: How the phases alternate.
        before: Optimiser steps of earlier rounds.
    """
    if alternation == "joint":
        return "joint"
    turn = step + before if alternation == "interleave" else step
    return "shared" if turn % 2 == 0 else "specific"


def optimiser_steps(local_steps: int, alternation: Alternation) -> int:
    """Return the number of optimiser steps in `local_steps`: twice as many if both phases see every batch."""
    return 2 * local_steps if alternation == "step" else local_steps


def draw(
    examples: int, batch: int, first: int, local_steps: int, alternation: Alternation, seed: int
) -> list[int]:
    """Return the indices of the examples of a client's optimiser steps, in order.

    The data order is an endless sequence of shuffled passes; local step s reads its s-th slice of `batch` examples. A
    round thus continues where the last one stopped, and any round can be repeated by itself.

    Args:
        examples: Number of the client's examples.
        batch: Examples of one local step (all micro-batches and devices together).
        first: Local steps before this round.
        local_steps: Local steps of this round.
        alternation: With `"step"` every batch is repeated, once per phase.
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


def interleaved(
    own: list[int], public: list[int], batch: int, public_batch: int, accumulation: int
) -> list[int]:
    """Return the order of own and public rows, so that every micro-batch has the same share of both.

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
