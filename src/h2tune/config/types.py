"""Types that the sections of a federation file are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""TOML has lists alone; in a frozen section they are tuples."""
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


class ConfigSection(BaseModel):
    """A section: strict, frozen, and without keys that are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
