"""The section [privacy] of a federation file, and what goes with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from h2tune.config.adapter import AdapterConfig
from h2tune.config.server import ServerConfig
from h2tune.config.types import ConfigSection, Positive, Rate


class PrivacyConfig(ConfigSection):
    """Noise on what is shared, and how much it may tell of one client: docs/privacy.md."""

    noise: Literal["none", "server", "member"] = "none"
    """Who adds it."""
    clip: Rate = 1.0
    """Most L2 norm of one client's N of equation (4)."""
    multiplier: Rate = 1.0
    """σ: standard deviation of the sum's noise in units of `clip`."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    target_epsilon: Rate | None = None
    """ε that all rounds together must not exceed."""
    shares: Positive | None = None
    """With noise = "member": members whose shares make up the whole noise; see `shares_of`."""
    structure: Literal["fixed", "public"] = "fixed"
    """Whether masks and relations are fixed, or learned from data and sent without protection."""
    metrics: Literal["told", "kept"] = "told"
    """Whether a member on its own machine tells the coordinator numbers of its training, which have no noise."""

    def shares_of(self, min_clients: int) -> int:
        """Return the shares of the members' noise: by default one less than all, for each knows its own."""
        return self.shares or max(1, min_clients - 1)

    def problem(self, server: ServerConfig, adapter: AdapterConfig) -> str:
        """Return why it does not go with the other sections; "" if it does."""
        if self.noise == "none":
            asked = self.target_epsilon is not None
            return 'privacy.target_epsilon needs privacy.noise = "server" or "member"' if asked else ""
        if server.strategy != "h2tune":
            return f'privacy.noise is for h2tune, not for strategy "{server.strategy}"'
        if server.aggregation != "mean":
            return f'privacy.noise is for server.aggregation = "mean": what "{server.aggregation}" tells is not bounded'
        if server.increments == "relevance":
            return 'privacy.noise does not go with server.increments = "relevance", whose weights tell of each client'
        if self.noise == "member" and server.wire_dtype == "int8":
            return (
                'privacy.noise = "member" does not go with server.wire_dtype = "int8": what rounding leaves out would '
                "be sent later, without noise of its own"
            )
        if server.weighting != "uniform":
            return (
                'privacy.noise needs server.weighting = "uniform": example counts are claims, and a weight would raise '
                "what one client can change"
            )
        if self.noise == "server" and server.secure_aggregation:
            return (
                'privacy.noise = "server" must see each update to clip it; with server.secure_aggregation members '
                'add it: privacy.noise = "member"'
            )
        fixed = adapter.mask == "leading" and adapter.alignment == "depth"
        if not fixed and (self.structure == "fixed" or self.noise == "member"):
            way = ', or privacy.structure = "public" to send them' if self.noise == "server" else ""
            return (
                "masks and relations are learned from data and sent without protection; set adapter.mask = "
                f'"leading" and adapter.alignment = "depth"{way}'
            )
        return ""
