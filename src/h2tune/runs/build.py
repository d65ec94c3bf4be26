"""From the words of a federation file to the method: strategy, noise, and what they need."""

from __future__ import annotations

from importlib.util import find_spec

from h2tune import baselines
from h2tune.config import FederationConfig, ServerConfig
from h2tune.errors import H2TuneError
from h2tune.federation import dp
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.messages import Enrolment
from h2tune.federation.strategy import Strategy


def build_strategy(
    federation: FederationConfig, enrolments: list[Enrolment], size: int, slots: int
) -> Strategy:
    """Return the method that the federation file names.

    Raises:
        H2TuneError: No method has that name.
    """
    server, adapter, experimental = federation.server, federation.adapter, federation.experimental
    name = server.strategy
    if name == "h2tune":
        return H2Tune(
            enrolments,
            shared_rank=size,
            slots=slots,
            mask=experimental.mask,
            alignment_mode=experimental.alignment,
            temperature=experimental.temperature,
            rate=experimental.server_learning_rate,
            weighting=server.weighting,
            wire_dtype=server.wire_dtype,
            alternation=experimental.alternation,
            alpha=adapter.alpha,
            dropout=adapter.dropout,
            size_weight=experimental.size_weight,
            drift_weight=experimental.drift_weight,
            distillation_weight=experimental.distillation_weight,
            basis=federation.basis.kind,
            basis_scale=experimental.basis_scale,
            start_norm=experimental.start_norm if experimental.start == "labels" else 0.0,
            start_blocks=experimental.start_blocks,
            increments=experimental.increments,
            aggregation=server.aggregation,
            hostile=server.assumed_hostile,
            clip_norm=None if experimental.clip_norm == "median" else experimental.clip_norm,
            mechanism=mechanism_of(federation),
            secure=len(federation.client) if server.secure_aggregation else 0,
        )
    return baselines.build(
        name,
        enrolments,
        shared_rank=size,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        weighting=server.weighting,
        seed=federation.seed,
    )


def mechanism_of(federation: FederationConfig) -> dp.Mechanism | None:
    """Return the noise on what is shared; None if there is none."""
    asked = federation.privacy
    if asked.noise == "none":
        return None
    shares = (
        federation.experimental.shares_of(federation.server.min_clients) if asked.noise == "member" else 1
    )
    return dp.Mechanism(asked.noise, asked.clip, asked.multiplier, asked.delta, shares)


def check_privacy(federation: FederationConfig) -> None:
    """Refuse rounds that exceed the target ε, and shares of noise that a round may lack.

    Raises:
        H2TuneError: Names what would do.
    """
    mechanism = mechanism_of(federation)
    if mechanism is None:
        return
    if mechanism.quorum > federation.server.min_clients:
        raise H2TuneError(
            f"{mechanism.shares} shares of the noise need {mechanism.quorum} members in a round (one knows its own), "
            f"but server.min_clients is {federation.server.min_clients}",
            where="experimental.noise_shares",
            remedy=f"Set server.min_clients = {mechanism.quorum}, or fewer shares with more noise each",
        )
    dp.check_budget(mechanism, federation.server.rounds, federation.privacy.target_epsilon)


def check_secure(server: ServerConfig) -> None:
    """Refuse secure aggregation where its packages are not installed.

    Raises:
        H2TuneError: Says what to install.
    """
    packages = ("cryptography", "Crypto")
    if server.secure_aggregation and not all(find_spec(package) for package in packages):
        raise H2TuneError(
            "cryptography and pycryptodome are not both installed",
            where="server.secure_aggregation",
            remedy="pip install 'h2tune[secure]'",
        )
