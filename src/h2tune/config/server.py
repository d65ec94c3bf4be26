"""The section [server] of a federation file, and what goes together in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from h2tune.config.types import ConfigSection, Fraction, Positive, Rate
from h2tune.functional.quorum import (
    SECURE_CLIENTS,
    Increments,
    Rule,
    drawn_clients,
    threshold_needed,
    updates_needed,
)


class ServerConfig(ConfigSection):
    """How the federation is led."""

    rounds: Positive = 3
    strategy: str = "h2tune"
    min_clients: Positive = 1
    """Clients whose updates must arrive for a round to count."""
    participation: Fraction = 1.0
    """Fraction of the clients that take part in a round."""
    shared_rank: Positive | Literal["auto"] = "auto"
    """R; by default the largest rank of a client."""
    slots: Positive | Literal["auto"] = "auto"
    """D; by default the largest depth of a client."""
    learning_rate: Rate = 1.0
    """η of equation (5)."""
    weighting: Literal["examples", "uniform"] = "examples"
    increments: Increments = "mean"
    """Whether G moves by the mean of the clients' increments, equation (5), or by their sum; or each client has a G of
    its own that moves by what is relevant to it, equation (10)."""
    aggregation: Rule = "mean"
    """How clients' increments are brought together: equation (5), or a rule that bears hostile clients."""
    hostile: Annotated[int, Field(ge=0)] | None = None
    """f: the hostile clients that a robust rule must bear; by default 1."""
    clip_norm: Rate | Literal["median"] = "median"
    """With aggregation = "clip": the largest norm; by default the median of the clients' norms."""
    wire_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    secure_aggregation: bool = False
    """Whether the server gets the sum of what members learned alone; `min_clients` is then the threshold of shares."""
    alone: bool = False
    """Also train every client alone, with the same steps, for comparison."""

    @model_validator(mode="after")
    def _robust(self) -> ServerConfig:
        if self.aggregation == "mean" and self.hostile is not None:
            raise ValueError(
                'hostile is for a robust rule, and aggregation = "mean" bears none; set aggregation, or leave it out'
            )
        if self.aggregation != "mean" and self.increments != "mean":
            raise ValueError(
                f'increments = "{self.increments}" does not go with aggregation = "{self.aggregation}", a robust mean'
            )
        if self.secure_aggregation and self.increments == "relevance":
            raise ValueError(
                'increments = "relevance" compares the updates of clients, and secure_aggregation shows their sum alone'
            )
        if self.aggregation != "clip" and self.clip_norm != "median":
            raise ValueError(f'clip_norm is for aggregation = "clip", not for "{self.aggregation}"')
        if self.aggregation != "mean" and self.strategy != "h2tune":
            raise ValueError(
                f'aggregation = "{self.aggregation}" is for h2tune, not for strategy "{self.strategy}"'
            )
        if self.secure_aggregation and (self.strategy, self.aggregation) != ("h2tune", "mean"):
            raise ValueError(
                'secure_aggregation is for strategy = "h2tune" with aggregation = "mean": a robust rule, or another '
                f'method, must see each update (here: "{self.strategy}", "{self.aggregation}")'
            )
        if self.secure_aggregation and self.weighting != "uniform":
            raise ValueError(
                'secure_aggregation needs weighting = "uniform": example counts would be a weight that nobody can check'
            )
        return self

    @property
    def assumed_hostile(self) -> int:
        """f: as stated; by default 1 for a robust rule, and 0 for the mean."""
        return self.hostile if self.hostile is not None else int(self.aggregation != "mean")

    def check_tolerance(self, clients: int) -> None:
        """Refuse a robust rule that so many clients, or a round of `min_clients`, cannot bear.

        Raises:
            ValueError: Says what the rule, or secure aggregation, needs.
        """
        if self.secure_aggregation:
            self._check_threshold(clients)
        needed = updates_needed(self.aggregation, self.assumed_hostile)
        rule = f'server.aggregation = "{self.aggregation}" with server.hostile = {self.assumed_hostile}'
        if clients < needed:
            raise ValueError(f"{rule} needs {needed} clients or more, but there are {clients}")
        if self.min_clients < needed:
            raise ValueError(
                f"{rule} needs {needed} updates in every round; set server.min_clients to {needed} or more "
                f"(it is {self.min_clients})"
            )

    def _check_threshold(self, clients: int) -> None:
        least, most = SECURE_CLIENTS
        if not least <= clients <= most:
            raise ValueError(
                f"server.secure_aggregation is for {least} to {most} clients, but there are {clients}: of two, each "
                "learns the other's part from the sum, and every pair of clients has a mask of its own"
            )
        drawn = drawn_clients(clients, self.participation, self.min_clients)
        needed = threshold_needed(drawn)
        if self.min_clients < needed:
            raise ValueError(
                f"server.secure_aggregation with {drawn} clients in a round needs server.min_clients (its threshold) "
                f"of {needed} or more (it is {self.min_clients}): two thirds, or two groups could unmask two sums"
            )

    def of_one(self) -> ServerConfig:
        """Return the same for a client by itself, where there is nobody to bear."""
        plain = {"aggregation": "mean", "hostile": None, "clip_norm": "median", "min_clients": 1}
        plain |= {"secure_aggregation": False, "increments": "mean"}
        return self.model_copy(update=plain)
