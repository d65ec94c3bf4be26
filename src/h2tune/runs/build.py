"""Build the strategy, its settings and the privacy mechanism of a federation file, and check their requirements."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

from h2tune import baselines, own_code
from h2tune.config import FederationConfig, ServerConfig, SharedConfig
from h2tune.errors import H2TuneError
from h2tune.federation import dp
from h2tune.federation.h2tune.own_rule import OwnRule
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.federation.messages import Enrolment
from h2tune.federation.strategy import Strategy
from h2tune.functional.quorum import Rule
from h2tune.own_code import is_reference


def build_strategy(
    federation: FederationConfig, enrolments: Sequence[Enrolment], size: int, slots: int
) -> Strategy[Any]:
    """Return the strategy that the federation file names.

    Args:
        federation: The file.
        enrolments: The clients.
        size: R.
        slots: D.

    Raises:
        H2TuneError: No strategy has that name.
    """
    server, adapter = federation.server, federation.adapter
    if server.strategy == "h2tune":
        return H2Tune(enrolments, h2tune_settings(federation, size, slots))
    return baselines.build(
        server.strategy,
        enrolments,
        shared_rank=size,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        weighting=server.weighting,
        seed=federation.seed,
    )


def h2tune_settings(
    federation: FederationConfig,
    size: int,
    slots: int,
    *,
    roles: tuple[str, ...] | None = None,
    secure_members: int | None = None,
) -> H2TuneSettings:
    """Return the settings of the h2tune strategy in a federation file.

    Args:
        federation: The file.
        size: R.
        slots: D.
        roles: Shared roles, where they are fixed before clients enrol.
        secure_members: Number of clients that may join with secure aggregation; by default the file's clients.
    """
    server, adapter, switches = federation.server, federation.adapter, federation.experimental
    clients = len(federation.client) if secure_members is None else secure_members
    return H2TuneSettings(
        shared_rank=size,
        slots=slots,
        roles=roles,
        mask=switches.mask,
        alignment=switches.alignment,
        temperature=switches.temperature,
        basis=federation.basis.kind,
        basis_scale=switches.basis_scale,
        start_norm=switches.start_norm if switches.start == "labels" else 0.0,
        start_blocks=switches.start_blocks,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        alternation=switches.alternation,
        size_weight=switches.size_weight,
        drift_weight=switches.drift_weight,
        distillation_weight=switches.distillation_weight,
        rate=switches.server_learning_rate,
        weighting=server.weighting,
        wire_dtype=server.wire_dtype,
        increments=switches.increments,
        aggregation="mean" if is_reference(server.aggregation) else cast(Rule, server.aggregation),
        own_rule=_own_rule(server.aggregation),
        hostile=server.assumed_hostile,
        clip_norm=None if switches.clip_norm == "median" else switches.clip_norm,
        mechanism=mechanism_of(federation),
        secure_clients=clients if server.secure_aggregation else 0,
    )


def _own_rule(name: str) -> OwnRule | None:
    """Return the user's own rule of aggregation; None where h2tune's is named.

    Raises:
        H2TuneError: It cannot be loaded, or is no function.
    """
    if not is_reference(name):
        return None
    rule = own_code.load(name, "server.aggregation")
    if not callable(rule):
        raise H2TuneError(
            f"'{own_code.short(name)}' is no function",
            where="server.aggregation",
            remedy="Name a function of (increments, coverages, weights) that returns one step for all clients",
        )
    return cast(OwnRule, rule)


def mechanism_of(federation: SharedConfig) -> dp.Mechanism | None:
    """Return the mechanism of differential privacy; None if no noise is added."""
    privacy = federation.privacy
    if privacy.noise == "none":
        return None
    shares = 1
    if privacy.noise == "member":
        shares = federation.experimental.shares_of(federation.server.min_clients)
    return dp.Mechanism(privacy.noise, privacy.clip, privacy.multiplier, privacy.delta, shares)


def check_privacy(federation: FederationConfig) -> None:
    """Refuse more rounds than the target ε allows, and noise shares that a round may lack.

    Raises:
        H2TuneError: Names the settings that would be accepted.
    """
    mechanism = mechanism_of(federation)
    if mechanism is None:
        return
    if mechanism.quorum > federation.server.min_clients:
        raise H2TuneError(
            f"{mechanism.shares} noise shares need {mechanism.quorum} clients in a round (each knows its own share), "
            f"but server.min_clients is {federation.server.min_clients}",
            where="experimental.noise_shares",
            remedy=f"Set server.min_clients = {mechanism.quorum}, or use fewer shares with more noise in each",
        )
    dp.check_budget(mechanism, federation.server.rounds, federation.privacy.target_epsilon)


def check_secure(server: ServerConfig) -> None:
    """Refuse secure aggregation where its packages are not installed.

    Raises:
        H2TuneError: Names the extra to install.
    """
    packages = ("cryptography", "Crypto")
    if server.secure_aggregation and not all(find_spec(package) for package in packages):
        raise H2TuneError(
            "cryptography and pycryptodome are not both installed",
            where="server.secure_aggregation",
            remedy="pip install 'h2tune[secure]'",
        )
