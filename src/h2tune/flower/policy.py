"""What a member agrees to: the table [policy] of its own file, checked on its own machine before each answer."""

from __future__ import annotations

import json
import math
from typing import Annotated

from pydantic import Field

from h2tune.config import SharedConfig
from h2tune.config.types import FROM_LIST, ConfigSection, Positive, Rate
from h2tune.errors import H2TuneError
from h2tune.files import sha256


class Policy(ConfigSection):
    """A member's limits; a run beyond one of them is refused, and its audit log says why."""

    settings: Annotated[tuple[str, ...], FROM_LIST] = Field(
        default=(),
        description="Checksums of the settings that it agreed to, as `h2tune deploy settings` prints them; any if left "
        "out.",
    )
    rounds: Positive | None = Field(default=None, description="Most rounds of a run.")
    noise: Rate | None = Field(
        default=None, description="Least noise that it adds itself, in units of the clipping norm."
    )
    clip: Rate | None = Field(default=None, description="Largest `privacy.clip`.")
    epsilon: Rate | None = Field(default=None, description="Most ε that all runs together may spend.")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-5, description="Largest `privacy.delta` where one of the three limits above is set."
    )
    metrics: bool = Field(default=True, description="Whether losses, accuracies and norms may leave.")
    readings: bool = Field(default=True, description="Whether readings of the public texts may leave.")
    directions: bool = Field(
        default=True, description="Whether label directions may leave; no noise is added to them."
    )

    def check(self, settings: SharedConfig, spent: float = 0.0) -> None:
        """Refuse settings beyond this policy.

        Args:
            settings: The coordinator's settings.
            spent: ε that other runs have spent.

        Raises:
            H2TuneError: Names the key of the policy.
        """
        basis = settings.basis
        if self.settings and checksum(settings) not in self.settings:
            raise _refused("settings", f"the settings have the checksum {checksum(settings)}")
        if self.rounds is not None and settings.server.rounds > self.rounds:
            raise _refused("rounds", f"{settings.server.rounds} rounds are more than {self.rounds}")
        if any(limit is not None for limit in (self.noise, self.clip, self.epsilon)):
            self._check_noise(settings, spent)
        if not self.metrics and settings.privacy.metrics != "private":
            raise _refused("metrics", 'privacy.metrics is not "private"')
        if not self.readings and basis.kind == "anchored" and not basis.encoder:
            raise _refused("readings", "clients send how their models read the public texts")
        if not self.directions and settings.teaching != "none":
            raise _refused("directions", "clients send label directions (basis.consensus)")

    def _check_noise(self, settings: SharedConfig, spent: float) -> None:
        """Refuse less noise than this policy asks for; noise by the server would be a promise of the coordinator's."""
        from h2tune.runs.build import mechanism_of  # imports torch

        privacy, mechanism = settings.privacy, mechanism_of(settings)
        key = next(k for k in ("noise", "clip", "epsilon") if getattr(self, k) is not None)
        if mechanism is None or mechanism.by != "member":
            raise _refused(key, "members do not add noise themselves (privacy.noise)")
        if privacy.delta > self.delta:
            raise _refused("delta", f"privacy.delta {privacy.delta:g} is more than {self.delta:g}")
        own = mechanism.multiplier / math.sqrt(mechanism.shares)
        if self.noise is not None and own < self.noise:
            raise _refused("noise", f"its own share of the noise, {own:.3g}, is less than {self.noise:g}")
        if self.clip is not None and privacy.clip > self.clip:
            raise _refused("clip", f"privacy.clip {privacy.clip:g} is more than {self.clip:g}")
        if self.epsilon is not None:
            total = spent + epsilon_of(settings, settings.server.rounds)
            if total > self.epsilon:
                raise _refused("epsilon", f"ε would be {total:.3g} over all runs, more than {self.epsilon:g}")


def _refused(key: str, what: str) -> H2TuneError:
    return H2TuneError(f"this member's policy refuses it: {what} (policy.{key})")


def checksum(settings: SharedConfig, *, rounds: bool = True) -> str:
    """Return the SHA-256 of a federation's settings, which coordinator and members compute alike.

    Args:
        settings: The settings.
        rounds: Whether the number of rounds counts, which a run may raise.
    """
    content = settings.model_dump(mode="json")
    if not rounds:
        del content["server"]["rounds"]
    return sha256(json.dumps(content, sort_keys=True).encode())


def epsilon_of(settings: SharedConfig, rounds: int) -> float:
    """Return ε of some rounds of a run towards whoever sees most of a member: 0 without noise."""
    from h2tune.federation import dp
    from h2tune.runs.build import mechanism_of

    mechanism = mechanism_of(settings)
    if mechanism is None:
        return 0.0
    spent = dp.spent(mechanism, rounds)
    return float(max(spent["epsilon"], spent.get("epsilon_to_server", 0.0)))
