"""The section [adapter] of a federation file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from h2tune.config.types import ConfigSection, Rate


class AdapterConfig(ConfigSection):
    """The adapter that every client trains."""

    alpha: Rate = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mask: Literal["entry", "block", "leading"] = "entry"
    alignment: Literal["learned", "depth"] = "learned"
    temperature: Rate = 1.0
