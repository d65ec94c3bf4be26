"""A client's lesson: public texts in tokens, with the teacher's probabilities of the client's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from h2tune.federation.messages import Tensors
from h2tune.training.encode import Encoded


@dataclass(frozen=True)
class Lesson:
    """Public texts that a client also trains on.

    Args:
        rows: The texts in tokens, each with the teacher's probabilities; empty where the client declined.
        facts: What an event says of the lesson.
    """

    rows: tuple[Encoded, ...]
    facts: Mapping[str, Any]

    def tensors(self) -> Tensors:
        """Return the rows as tensors: tokens one after the other, their counts, the probabilities (n, C).

        And for a decoder the labels' first tokens (n, C), on which it is taught.
        """
        firsts = [[choice[0] for choice in row.choices] for row in self.rows]
        return {
            "tokens": torch.tensor([t for row in self.rows for t in row.prompt], dtype=torch.int32),
            "lengths": torch.tensor([len(row.prompt) for row in self.rows], dtype=torch.int32),
            "targets": torch.tensor([row.target or () for row in self.rows], dtype=torch.float32),
            "firsts": torch.tensor(firsts, dtype=torch.int32),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Lesson:
        """Return the lesson that `tensors` were made of."""
        parts = tensors["tokens"].split(tensors["lengths"].tolist())
        targets, firsts = tensors["targets"].tolist(), tensors["firsts"].tolist()
        rows = (
            Encoded(tuple(part.tolist()), (), None, tuple(target), tuple((token,) for token in tokens))
            for part, target, tokens in zip(parts, targets, firsts, strict=True)
        )
        return cls(tuple(rows), facts)
