"""The section [server] of a federation file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from h2tune.config.types import ConfigSection, Count, Fraction, Positive
from h2tune.functional.quorum import Rule
from h2tune.own_code import Reference, is_reference


class ServerConfig(ConfigSection):
    """Rounds, participation, and how the server aggregates updates."""

    rounds: Positive = Field(default=3, description="Number of rounds.")
    strategy: str = Field(
        default="h2tune",
        description="The method: `h2tune`, a baseline such as `fedit`, or `module:object` with one of your own.",
    )
    min_clients: Positive = Field(
        default=1,
        description="Updates that must arrive for a round to count; a robust rule or secure aggregation raises the "
        "default to the least number it needs.",
    )
    participation: Fraction = Field(
        default=1.0, description="Fraction of the clients that take part in each round."
    )
    shared_rank: Positive | Literal["auto"] = Field(
        default="auto", description="Rank R of the shared matrices; `auto` is the largest rank of a client."
    )
    slots: Positive | Literal["auto"] = Field(
        default="auto", description="Number D of shared blocks; `auto` is the largest depth of a client."
    )
    weighting: Literal["examples", "uniform"] = Field(
        default="examples",
        description="Weight of a client in the mean: its number of examples, or the same for all; noise and secure "
        "aggregation make `uniform` the default.",
    )
    aggregation: Rule | Reference = Field(
        default="mean",
        description="How the server combines updates: the mean, a rule that tolerates hostile clients, or a function "
        "of your own.",
    )
    hostile: Count | None = Field(
        default=None,
        description="Number f of hostile clients that a robust rule must tolerate; 1 if left out.",
    )
    refuse_far: bool = Field(
        default=False,
        description="Whether an update of more than 100 times the median norm of the others is left out of its round; "
        "by default it is a warning.",
    )
    wire_dtype: Literal["float32", "float16", "bfloat16", "int8"] = Field(
        default="float32",
        description="Number format of the tensors that are sent; with `int8` the rounding error goes with the next "
        "update.",
    )
    secure_aggregation: bool = Field(
        default=False,
        description="Whether the server receives only the sum of the updates; `min_clients` is then the threshold.",
    )

    @property
    def assumed_hostile(self) -> int:
        """f: as stated; by default 1 for a robust rule, and 0 for the mean."""
        return self.hostile if self.hostile is not None else int(self.is_robust)

    @property
    def is_robust(self) -> bool:
        """Whether a rule that tolerates hostile clients combines the updates."""
        return self.aggregation != "mean" and not is_reference(self.aggregation)

    def of_one(self) -> ServerConfig:
        """Return the same for a client that trains by itself, which needs no protection from others."""
        plain = {"aggregation": "mean", "hostile": None, "min_clients": 1, "secure_aggregation": False}
        return self.model_copy(update={**plain, "refuse_far": False})
