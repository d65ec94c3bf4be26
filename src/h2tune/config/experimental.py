"""The section [experimental] of a federation file: switches for research, which may change between versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from h2tune.config.types import ConfigSection, Count, Positive, Rate, Weight
from h2tune.functional.quorum import Increments


def _pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be [k, n], such as [0, 3] for the first of three parts")
    return tuple(value)


Part = Annotated[tuple[Count, Positive], BeforeValidator(_pair)]
"""(k, n): the k-th, from 0, of n disjoint parts."""


class ExperimentalConfig(ConfigSection):
    """Switches for research; they may change between versions."""

    alone: bool = Field(
        default=False,
        description="Whether to train every client alone as well, on as many rows in the same rounds, for "
        "comparison.",
    )
    parts: dict[str, Part] = Field(
        default_factory=dict,
        description="Client → `[k, n]`: it draws from the k-th (from 0) of n disjoint parts of its task's training "
        "data.",
    )
    evaluate_rounds: Literal["all", "last"] = Field(
        default="all", description="Score clients after every round, or only after the last one."
    )
    increments: Increments = Field(
        default="mean",
        description="How G moves: by the mean of the clients' increments, equation (5), their sum, or with weights of "
        "relevance, equation (10); or not at all: T stays private.",
    )
    server_learning_rate: Rate = Field(default=1.0, description="Server learning rate η of equation (5).")
    clip_norm: Rate | Literal["median"] = Field(
        default="median",
        description='With `aggregation = "clip"`: the largest norm of a client\'s values; `median` is the median of '
        "the clients' norms.",
    )
    mask: Literal["entry", "block", "leading"] = Field(
        default="entry",
        description="What a client of rank r trains of the R × R matrix: any r² entries, r rows and r columns, or the "
        "leading r × r block, which has no scores.",
    )
    alignment: Literal["learned", "depth"] = Field(
        default="learned",
        description="Whether the relation of blocks is learned, or fixed by relative depth.",
    )
    temperature: Rate = Field(default=1.0, description="Temperature τ of the relation.")
    basis_scale: Rate = Field(default=1.0, description="Scale s of equation (8).")
    start: Literal["zero", "labels"] = Field(
        default="zero",
        description="What T starts from in an anchored basis: zero, or the directions that separate the client's own "
        "labels, equation (9).",
    )
    start_norm: Rate = Field(default=2.0, description="Norm c of the start from labels, equation (9).")
    start_blocks: Positive = Field(
        default=1, description="Number of blocks, counted from the output, in which T starts from labels."
    )
    alternation: Literal["step", "interleave", "joint"] = Field(
        default="step",
        description="Both phases on every batch (two passes), on alternate batches (one pass), or no phases.",
    )
    shared_learning_rate: Rate | None = Field(
        default=None,
        description="Learning rate of Δ and S; 1e-2 in an anchored basis and `train.learning_rate` in a free one if "
        "left out.",
    )
    shared_optimizer: Literal["same", "normalised"] = Field(
        default="same",
        description="Optimiser of Δ: AdamW as for all else, or momentum gradients of a fixed norm.",
    )
    relation_learning_rate: Rate = Field(
        default=1e-2, description="Learning rate of the relation's scores Z."
    )
    public_batch: Positive = Field(
        default=8,
        description="Public texts in a batch, beside the client's own examples, where it has a teacher; as many as "
        "`train.batch_size` if left out.",
    )
    teacher_labels: Weight = Field(
        default=128.0,
        description="How many labels the teacher counts as: μ of equation (14) is this over the number of own labels.",
    )
    head_start: Literal["random", "labels"] = Field(
        default="random",
        description="Whether a new classification head starts at random or fitted to the labels; with a teacher "
        "it starts at the teacher.",
    )
    size_weight: Weight = Field(default=1e-4, description="Weight λ_reg of the size term, equation (6).")
    drift_weight: Weight = Field(default=0.1, description="Weight λ_kl of the drift term, equation (6).")
    distillation_weight: Weight = Field(
        default=0.1, description="Weight λ_kd of the distillation term, equation (7)."
    )
    privacy_structure: Literal["fixed", "public"] = Field(
        default="fixed",
        description='With `privacy.noise = "server"`: whether masks and relations are fixed, or learned and sent '
        "without protection.",
    )
    noise_shares: Positive | None = Field(
        default=None,
        description='With `privacy.noise = "member"`: number of members whose shares make up the whole noise; '
        "`min_clients` − 1 if left out, for each member knows its own.",
    )

    def part_of(self, client: str) -> tuple[int, int]:
        """Return (k, n) of a client: the whole of its task's data if it has no part."""
        return self.parts.get(client, (0, 1))

    def shares_of(self, min_clients: int) -> int:
        """Return the number of shares of the members' noise; by default one less than `min_clients`."""
        return self.noise_shares or max(1, min_clients - 1)

    def of_one(self) -> ExperimentalConfig:
        """Return the same for a client that trains by itself, where nothing is aggregated."""
        increments = self.increments if self.increments == "none" else "mean"
        return self.model_copy(update={"increments": increments, "clip_norm": "median"})
