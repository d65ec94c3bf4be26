"""The section [adapter] of a federation file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from h2tune.config.types import ConfigSection, Rate


class AdapterConfig(ConfigSection):
    """The adapter that every client trains."""

    alpha: Rate = Field(default=16.0, description="LoRA's α: the adapter's output is scaled by α / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Dropout probability on the adapter's input."
    )
