"""What a run will be, before it: roles, ranks, parameters, memory, bytes. No weights and no data are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from h2tune.config import FederationConfig
from h2tune.federation import dp
from h2tune.federation.h2tune.basis import view_spec
from h2tune.federation.messages import payload_bytes
from h2tune.runs.build import build_strategy, mechanism_of
from h2tune.runs.enrol import enrol_all
from h2tune.runs.model_info import ClientInfo
from h2tune.runs.ranks import ADAM_BYTES, trainable_in

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTISED = 0.5625
"""Bytes of a parameter in 4 bits, with a scale in float32 for each 64."""


def base_bytes(seen: ClientInfo) -> int:
    """Return the bytes of a base model's weights in memory."""
    if seen.client.dtype != "nf4":
        return seen.base_parameters * WIDTH[seen.client.dtype]
    linear = sum(p.d_in * p.d_out for p in seen.placements)
    return round(linear * QUANTISED) + (seen.base_parameters - linear) * WIDTH["float32"]


@dataclass(frozen=True)
class Forecast:
    """What `h2tune inspect` says.

    Args:
        shared_rank: R.
        slots: D.
        roles: Shared roles.
        clients: Per client: name, model, family, task, rank, depth, roles (role → modules), trainable parameters,
            base parameters, memory in bytes, bytes up and down by round; in an anchored basis bytes up and down once.
        guards: What guards the federation, a line each.
    """

    shared_rank: int
    slots: int
    roles: tuple[str, ...]
    clients: tuple[dict[str, Any], ...]
    guards: tuple[str, ...] = ()


def inspect(federation: FederationConfig) -> Forecast:
    """Predict what a run trains and sends, exactly.

    Raises:
        H2TuneError: What `run` would refuse before training.
    """
    seen, enrolments, size, slots = enrol_all(federation)
    strategy = build_strategy(federation, enrolments, size, slots)
    clients = []
    for s, e in zip(seen, enrolments, strict=True):
        parameters = trainable_in(federation, s, e.rank, size, slots)
        agreed = view_spec(s.width, federation.basis.count, size) if federation.anchored else ({}, {})
        frames = sum(sum(widths) for widths in e.modules.values()) * size if federation.anchored else 0
        clients.append(
            {
                "name": e.name,
                "model": e.model,
                "family": s.family,
                "kind": s.kind,
                "task": s.task.name,
                "scorer": s.task.scorer,
                "rank": e.rank,
                "depth": e.depth,
                "roles": {role: len(blocks) for role, blocks in e.roles.items()},
                "trainable_parameters": parameters,
                "base_parameters": s.base_parameters,
                "memory_bytes": base_bytes(s) + parameters * ADAM_BYTES + frames * WIDTH["float32"],
                "note": strategy.note(e.name),
                "bytes_up": payload_bytes(strategy.upload_spec(e.name, 0)),
                "bytes_down": [
                    payload_bytes(strategy.download_spec(e.name, number))
                    for number in range(federation.server.rounds)
                ],
                "basis_bytes": [payload_bytes(spec) for spec in agreed],
            }
        )
    roles = strategy.roles
    return Forecast(size, slots, roles, tuple(clients), tuple(guards(federation)))


def guards(federation: FederationConfig) -> list[str]:
    """Say what guards a federation: robust rules, secure aggregation, and the ε that all its rounds will have spent."""
    server, told = federation.server, []
    if server.aggregation != "mean":
        told.append(
            f'aggregation by "{server.aggregation}": bears {server.assumed_hostile} hostile of '
            f"{len(federation.client)} clients"
        )
    if server.secure_aggregation:
        told.append(
            f"secure aggregation: the server gets sums over {server.min_clients} clients or more, and no client's part"
        )
    if mechanism := mechanism_of(federation):
        spent = dp.spent(mechanism, server.rounds)
        line = f"noise by the {mechanism.by}: ε = {spent['epsilon']:.3g} at δ = {mechanism.delta:g} after all rounds"
        if "epsilon_to_server" in spent:
            line += f"; against the coordinator ε = {spent['epsilon_to_server']:.3g}"
        told.append(line)
    return told
