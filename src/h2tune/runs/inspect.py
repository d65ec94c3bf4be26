"""Predict a run: roles, ranks, parameters, memory, bytes. No weights and no data but the first rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from h2tune.config import FederationConfig, ServerConfig, check_inputs
from h2tune.errors import H2TuneError, within
from h2tune.federation import dp
from h2tune.federation.h2tune.basis import coordinate_count, view_spec
from h2tune.federation.messages import Enrolment, payload_bytes
from h2tune.federation.strategy import Strategy
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.functional.quorum import colluders_tolerated, drawn_clients
from h2tune.models import folder_of, load_tokenizer
from h2tune.runs.build import build_strategy, mechanism_of
from h2tune.runs.enrol import enrol_all
from h2tune.runs.model_info import ClientInfo
from h2tune.runs.ranks import ADAM_BYTES, trainable_in
from h2tune.training.chat_tokens import rendered
from h2tune.training.prompt_tokens import label_answers

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTISED = 0.5625
"""Bytes of a 4-bit parameter, with one float32 scale for each 64 of them."""


def base_bytes(info: ClientInfo) -> int:
    """Return the bytes of a base model's weights in memory."""
    if info.client.dtype != "nf4":
        return info.base_parameters * WIDTH[info.client.dtype]
    linear = sum(p.d_in * p.d_out for p in info.placements)
    return round(linear * QUANTISED) + (info.base_parameters - linear) * WIDTH["float32"]


@dataclass(frozen=True)
class Forecast:
    """The prediction that `h2tune inspect` prints.

    Args:
        shared_rank: R.
        slots: D.
        roles: Shared roles.
        clients: Per client: name, model, family, task, rank, depth, roles (role → modules), trainable parameters,
            base parameters, memory in bytes, bytes up and down per round; bytes up and down for an anchored basis.
        guards: The protections of the federation, one line each.
    """

    shared_rank: int
    slots: int
    roles: tuple[str, ...]
    clients: tuple[dict[str, Any], ...]
    guards: tuple[str, ...] = ()


def inspect(federation: FederationConfig) -> Forecast:
    """Return exactly what a run trains and sends.

    Raises:
        H2TuneError: Every problem for which `run` would stop before training, as far as weights, tokens and all but
            the first rows of files do not matter.
    """
    check_inputs(federation)
    infos, enrolments, size, slots = enrol_all(federation)
    for info in infos:
        _check_tokenizer(info)
    strategy = build_strategy(federation, enrolments, size, slots)
    clients = [
        _client(federation, strategy, info, enrolled, size, slots)
        for info, enrolled in zip(infos, enrolments, strict=True)
    ]
    return Forecast(size, slots, strategy.roles, tuple(clients), tuple(guards(federation)))


def _check_tokenizer(info: ClientInfo) -> None:
    """Check that a model has a tokenizer, and that it tells the labels apart; a demo model may not be fetched yet.

    Raises:
        H2TuneError: Names the client.
    """
    client = info.client
    try:
        folder_of(client.model)
    except H2TuneError:
        return
    with within(f"client '{client.name}'"):
        tokenizer = load_tokenizer(client.model, code=client.trust_remote_code)
        if info.kind == "causal" and info.task.kind == "label":
            label_answers(info.task, tokenizer)
        if info.task.chat:
            rendered((("user", "text"),), info.task, tokenizer, asking=True)


def _client(
    federation: FederationConfig,
    strategy: Strategy[Any],
    info: ClientInfo,
    enrolled: Enrolment,
    size: int,
    slots: int,
) -> dict[str, Any]:
    """Return the prediction for one client, as `Forecast` describes it."""
    name, rounds = enrolled.name, range(federation.server.rounds)
    parameters = trainable_in(federation, info, enrolled.rank, size, slots)
    memory = base_bytes(info) + parameters * ADAM_BYTES
    if federation.anchored:
        memory += sum(sum(widths) for widths in enrolled.modules.values()) * size * WIDTH["float32"]
    return {
        "name": name,
        "model": enrolled.model,
        "family": info.family,
        "kind": info.kind,
        "task": info.task.name,
        "scorer": info.task.scorer,
        "rank": enrolled.rank,
        "depth": enrolled.depth,
        "roles": {role: len(blocks) for role, blocks in enrolled.roles.items()},
        "trainable_parameters": parameters,
        "base_parameters": info.base_parameters,
        "memory_bytes": memory,
        "note": strategy.note(name),
        "bytes_up": payload_bytes(strategy.upload_spec(name, 0)),
        "bytes_down": [payload_bytes(strategy.download_spec(name, number)) for number in rounds],
        "basis_bytes": _bytes_before(federation, info, size),
    }


def _bytes_before(federation: FederationConfig, info: ClientInfo, size: int) -> list[int]:
    """Return the bytes that a client sends and receives before the first round: basis, and exchange of knowledge.

    A client that cannot take part in the exchange, for instance as its examples have one label, sends less.
    """
    teaching, count = federation.teaching, federation.basis.count
    sums = [0, 0]
    specs = []
    coordinates = coordinate_count(size, teaching)
    if federation.anchored and not federation.basis.encoder:
        specs.append(view_spec(info.width, count, coordinates))
    if teaching != "none" and info.task.kind == "label":
        specs.append(KNOWLEDGE[teaching].specs(count, coordinates, len(info.task.labels)))
    for pair in specs:
        sums = [total + payload_bytes(spec) for total, spec in zip(sums, pair, strict=True)]
    return sums


def _masked(server: ServerConfig, clients: int) -> str:
    """Return what secure aggregation protects from, and which `min_clients` protects from one client more."""
    drawn = drawn_clients(clients, server.participation, server.min_clients)
    tolerated = colluders_tolerated(drawn, server.min_clients)
    line = (
        f"secure aggregation: the server receives only sums over at least {server.min_clients} clients; in league with "
        f"{tolerated} of {drawn} clients it learns no single update"
    )
    enough = max(tolerated + 3, (drawn + tolerated + 1) // 2 + 1)
    return line + (
        f", with {tolerated + 1} it does: min_clients = {enough} prevents it" if enough <= drawn else ""
    )


def guards(federation: FederationConfig) -> list[str]:
    """Return the protections of a federation: robust aggregation, secure aggregation, and ε after all rounds."""
    server, lines = federation.server, []
    if server.is_robust:
        lines.append(
            f'aggregation by "{server.aggregation}": tolerates {server.assumed_hostile} hostile of '
            f"{len(federation.client)} clients"
        )
    if server.secure_aggregation:
        lines.append(_masked(server, len(federation.client)))
    if mechanism := mechanism_of(federation):
        spent = dp.spent(mechanism, server.rounds)
        source = "the server" if mechanism.by == "server" else "each client"
        line = (
            f"noise added by {source}: ε = {spent['epsilon']:.3g} at δ = {mechanism.delta:g} after all rounds"
        )
        if "epsilon_to_server" in spent:
            line += f"; towards the coordinator ε = {spent['epsilon_to_server']:.3g}"
        lines.append(line)
    return lines
