"""Settings that do not go together, across the sections of a federation file."""

from __future__ import annotations

from h2tune.config.privacy_checks import check_noise
from h2tune.config.sections import FederationConfig, SharedConfig
from h2tune.config.server import ServerConfig
from h2tune.errors import H2TuneError, nearest
from h2tune.functional.quorum import SECURE_CLIENTS, drawn_clients, threshold_needed, updates_needed

LEAST_SUM = 2
"""Least updates in a sum under secure aggregation: the sum of one is that client's update."""


def check(config: SharedConfig) -> None:
    """Refuse a resolved file whose settings contradict each other.

    Raises:
        H2TuneError: What is wrong, under which key, and what to do.
    """
    _rule(config)
    _far(config)
    if config.server.secure_aggregation:
        _secure(config)
    if config.names:
        _names(config)
        _quorum(config.server, len(config.names))
        _enough(config.server, len(config.names))
    check_noise(config)
    _consensus(config)
    _experimental(config)
    if isinstance(config, FederationConfig):
        _clients(config)


def least_clients(server: ServerConfig, clients: int) -> int:
    """Return the least `min_clients` that a robust rule or secure aggregation needs; 1 for neither.

    Args:
        server: The section.
        clients: Number of all clients; 0 if it is not known.
    """
    needed = updates_needed(server.aggregation, server.assumed_hostile)
    if server.secure_aggregation and clients:
        stated = server.min_clients if "min_clients" in server.model_fields_set else 1
        needed = max(needed, _threshold(server, clients, stated))
    return needed


def _threshold(server: ServerConfig, clients: int, min_clients: int) -> int:
    return max(LEAST_SUM, threshold_needed(drawn_clients(clients, server.participation, min_clients)))


def _names(config: SharedConfig) -> None:
    names = list(config.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        kind = "client" if isinstance(config, FederationConfig) else "member"
        raise H2TuneError(
            f"two {kind}s are called '{twice[0]}'", where=kind, remedy=f"Give every {kind} a name of its own"
        )


def _rule(config: SharedConfig) -> None:
    """Check what goes with the aggregation rule."""
    server, increments = config.server, config.experimental.increments
    rule = f'server.aggregation = "{server.aggregation}"'
    if not server.is_robust and server.hostile is not None:
        raise H2TuneError(
            f"{rule} tolerates no hostile clients",
            where="server.hostile",
            remedy="Leave it out, or set server.aggregation to a robust rule",
        )
    if server.aggregation != "clip" and config.experimental.clip_norm != "median":
        raise H2TuneError(
            f'clip_norm is for server.aggregation = "clip", not for "{server.aggregation}"',
            where="experimental.clip_norm",
            remedy="Leave it out",
        )
    if server.aggregation == "mean":
        return
    if server.strategy != "h2tune":
        raise H2TuneError(
            f'{rule} is for strategy "h2tune", not for strategy "{server.strategy}"',
            where="server.aggregation",
            remedy="Leave one of the two out",
        )
    if increments != "mean":
        raise H2TuneError(
            f'{rule} computes one step for all and does not go with "{increments}"',
            where="experimental.increments",
            remedy='Leave it out, or set server.aggregation = "mean"',
        )


def _far(config: SharedConfig) -> None:
    """Check that the server knows the norms by which it is to refuse updates."""
    if not config.server.refuse_far:
        return
    strategy = config.server.strategy
    reasons = {
        f'it is for strategy "h2tune", not for strategy "{strategy}"': strategy != "h2tune",
        "server.secure_aggregation hides the norm of an update": config.server.secure_aggregation,
        "privacy.noise hides the norm of an update, and privacy.clip bounds it": config.privacy.noise
        != "none",
    }
    for reason, holds in reasons.items():
        if holds:
            raise H2TuneError(reason, where="server.refuse_far", remedy="Leave one of the two out")


def _secure(config: SharedConfig) -> None:
    """Check what goes with secure aggregation."""
    server, where = config.server, "server.secure_aggregation"
    if (server.strategy, server.aggregation) != ("h2tune", "mean"):
        raise H2TuneError(
            'it needs strategy = "h2tune" and aggregation = "mean": a robust rule, or another method, must see each '
            f'update (here "{server.strategy}", "{server.aggregation}")',
            where=where,
            remedy="Change these, or set secure_aggregation = false",
        )
    if config.experimental.increments == "none":
        raise H2TuneError(
            'experimental.increments = "none" sends nothing to add up', where=where, remedy="Leave one out"
        )
    if config.experimental.increments == "relevance":
        raise H2TuneError(
            'experimental.increments = "relevance" compares the updates of clients, and the server receives only '
            "their sum",
            where=where,
            remedy="Leave one of the two out",
        )
    if server.weighting != "uniform":
        raise H2TuneError(
            'secure aggregation needs "uniform": nobody could check the example counts that others claim',
            where="server.weighting",
            remedy="Leave it out",
        )


def _consensus(config: SharedConfig) -> None:
    """Check what goes with a consensus on public texts, and with an encoder of them."""
    if config.basis.encoder and config.basis.kind == "free":
        raise H2TuneError(
            'basis.kind = "free" has no coordinates', where="basis.encoder", remedy="Leave one of the two out"
        )
    public, parts = config.experimental.public_batch, config.train.accumulation
    if config.teaching != "none" and public % parts:
        raise H2TuneError(
            f"{public} public texts do not divide into {parts} micro-batches",
            where="train.accumulation",
            remedy="Let it divide train.batch_size and experimental.public_batch",
        )
    if not config.basis.consensus:
        return
    reasons = {
        'basis.kind = "free" has no common coordinates': config.basis.kind == "free",
        "server.secure_aggregation hides each client's update": config.server.secure_aggregation,
        "privacy.noise does not cover label directions": config.privacy.noise != "none",
    }
    for reason, holds in reasons.items():
        if holds:
            raise H2TuneError(reason, where="basis.consensus", remedy="Leave basis.consensus out")


def _quorum(server: ServerConfig, clients: int) -> None:
    """Check that there are enough clients, and that a round needs enough of them."""
    least, most = SECURE_CLIENTS
    if server.secure_aggregation and not least <= clients <= most:
        raise H2TuneError(
            f"it is for {least} to {most} clients, but there are {clients}: of two clients, each learns the other's "
            "update from the sum, and every pair of clients has a mask of its own",
            where="server.secure_aggregation",
        )
    needed = updates_needed(server.aggregation, server.assumed_hostile)
    reason = f'aggregation = "{server.aggregation}" with hostile = {server.assumed_hostile}'
    if clients < needed:
        raise H2TuneError(
            f"{reason} needs {needed} clients or more, but there are {clients}",
            where="server.aggregation",
            remedy="Add clients, or lower server.hostile",
        )
    if server.secure_aggregation:
        needed = _threshold(server, clients, server.min_clients)
        drawn = drawn_clients(clients, server.participation, server.min_clients)
        reason = f"secure aggregation with {drawn} clients in a round"
    if server.min_clients < needed:
        raise H2TuneError(
            f"{reason} needs {needed} updates in every round, but min_clients is {server.min_clients}",
            where="server.min_clients",
            remedy=f"Set it to {needed} or more, or leave it out",
        )


def _enough(server: ServerConfig, clients: int) -> None:
    if server.min_clients > clients:
        raise H2TuneError(
            f"min_clients is {server.min_clients}, but there are {clients} clients",
            where="server.min_clients",
            remedy=f"Set it to {clients} or less",
        )


def _experimental(config: SharedConfig) -> None:
    experimental = config.experimental
    if experimental.start == "labels" and config.basis.kind != "anchored":
        raise H2TuneError(
            '"labels" needs frames that mean the same on every model',
            where="experimental.start",
            remedy='Set basis.kind = "anchored", or leave start out',
        )
    if experimental.evaluate_rounds == "last" and config.server.participation < 1:
        raise H2TuneError(
            '"last" needs server.participation = 1: a client that is not in the last round would have no score',
            where="experimental.evaluate_rounds",
            remedy="Leave one of the two out",
        )
    for name, (k, n) in experimental.parts.items():
        if config.names and name not in config.names:
            raise H2TuneError(
                f"no client is called '{name}'{nearest(name, config.names)}", where="experimental.parts"
            )
        if k >= n:
            raise H2TuneError(
                f"part {k} of {n} does not exist",
                where=f"experimental.parts.{name}",
                remedy=f"Count from 0 to {n - 1}",
            )


def _clients(config: FederationConfig) -> None:
    """Check each client against the settings for all."""
    size = config.server.shared_rank
    for client in config.client:
        steps = client.local_steps or config.train.local_steps
        if config.experimental.alternation == "interleave" and steps < 2:
            raise H2TuneError(
                f"\"interleave\" needs local_steps of 2 or more, and client '{client.name}' has {steps}",
                where="experimental.alternation",
                remedy="Raise local_steps",
            )
        validation = config.data.validation if client.validation is None else client.validation
        if config.data.evaluate == "validation" and not validation:
            raise H2TuneError(
                "there are no validation examples to evaluate on",
                where=f"client '{client.name}'",
                remedy="Set data.validation",
            )
        if client.train == 0 and config.server.strategy == "h2tune" and not config.basis.consensus:
            raise H2TuneError(
                "a client without labels learns from what others know of the public texts alone",
                where=f"client '{client.name}'.train",
                remedy="Set basis.consensus = true",
            )
        if isinstance(size, int) and isinstance(client.rank, int) and client.rank > size:
            raise H2TuneError(
                f"shared_rank {size} is below rank {client.rank} of client '{client.name}'",
                where="server.shared_rank",
                remedy="Raise shared_rank or lower the client's rank",
            )
