"""The section [privacy] of a federation file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from h2tune.config.types import ConfigSection, Rate


class PrivacyConfig(ConfigSection):
    """Differential privacy of what is shared; docs/privacy.md says what it protects and what it does not."""

    noise: Literal["none", "server", "member"] = Field(
        default="none",
        description="Who clips updates and adds Gaussian noise: nobody, the server once, or each member its share.",
    )
    clip: Rate = Field(
        default=1.0, description="Largest L2 norm of one client's contribution N, equation (4)."
    )
    multiplier: Rate = Field(
        default=1.0, description="Noise multiplier σ: the noise on the sum has standard deviation σ · `clip`."
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-5,
        description="δ of (ε, δ)-differential privacy; choose it well below 1 / number of clients.",
    )
    target_epsilon: Rate | None = Field(
        default=None, description="The run is refused at its start if all its rounds together exceed this ε."
    )
    metrics: Literal["shared", "private"] = Field(
        default="shared",
        description="Across machines: whether members send losses, accuracies, norms, times and warnings, which carry "
        "no noise, to the coordinator.",
    )
