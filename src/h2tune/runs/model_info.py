"""What is known of a client from the descriptions of its model and task. No weights and no data are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from h2tune.adapter.roles import Placement, depth, find_roles
from h2tune.config import ClientConfig
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Enrolment
from h2tune.models import Kind, empty_model, head_modules, kind_of, position_limit, read_config, summary
from h2tune.tasks.load import describe_task
from h2tune.tasks.task import Task


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model, as a client uses it, without reading weights.

    Args:
        kind: Whether it answers with words or through a head.
        placements: Its adapted modules.
        head_parameters: Parameters of its private head.
        base_parameters: Parameters of its base model.
        positions: Tokens its model has positions for, where it says.
        family: Its model's family.
        width: Its model's width.
    """

    kind: Kind
    placements: tuple[Placement, ...]
    head_parameters: int
    base_parameters: int
    positions: int | None
    family: str
    width: int


@dataclass(frozen=True)
class ClientInfo(ModelInfo):
    """What is known of a client without reading weights or data.

    Args:
        client: Its table in the federation file.
        task: Its task.
    """

    client: ClientConfig
    task: Task


ModelInfos = dict[tuple[Any, ...], ModelInfo]
"""What was found of models so far, in one federation: clients may share them."""


def see(client: ClientConfig, looks: ModelInfos | None = None) -> ClientInfo:
    """Look at a client's model and task by their descriptions.

    Args:
        client: Its table in the federation file.
        looks: What is known of others' models, and is added to.

    Raises:
        H2TuneError: Names the client, and what is wrong with its model, task or rank.
    """
    where = f"client '{client.name}'"
    looks = {} if looks is None else looks
    try:
        task = describe_task(client.task)
        roles = None if client.roles is None else tuple(client.roles.items())
        key = (client.model, client.head, roles, len(task.labels))
        if key not in looks:
            looks[key] = _look(client, max(1, len(task.labels)))
        found = looks[key]
        if found.kind == "classifier" and task.kind != "label":
            raise H2TuneError(
                f"task '{task.name}' wants free answers, which a {found.family} model with a head cannot give"
            )
    except H2TuneError as error:
        raise H2TuneError(
            error.message, where=", ".join(p for p in (where, error.where) if p), remedy=error.remedy
        ) from None
    narrow = min(found.placements, key=lambda p: min(p.d_in, p.d_out))
    most = min(narrow.d_in, narrow.d_out)
    if isinstance(client.rank, int) and client.rank > most:
        raise H2TuneError(
            f"rank {client.rank} is above what '{narrow.module}' has ({narrow.d_in} × {narrow.d_out})",
            where=where,
            remedy=f"Set rank to at most {most}",
        )
    if found.positions and client.max_length and client.max_length > found.positions:
        raise H2TuneError(
            f"max_length {client.max_length} is above the {found.positions} positions of its model",
            where=where,
            remedy=f"Set max_length to at most {found.positions}",
        )
    return ClientInfo(**vars(found), client=client, task=task)


def _look(client: ClientConfig, labels: int) -> ModelInfo:
    config = read_config(client.model)
    kind = kind_of(config, client.head)
    model = empty_model(config, kind, labels)
    heads = head_modules(model) if kind == "classifier" else []
    return ModelInfo(
        kind,
        find_roles(model, client.roles),
        head_parameters=sum(p.numel() for name in heads for p in model.get_submodule(name).parameters()),
        base_parameters=sum(p.numel() for p in model.parameters()),
        positions=position_limit(config),
        **summary(config),
    )


def enrolment(seen: ClientInfo, rank: int, examples: int) -> Enrolment:
    """Return what the server knows of a client."""
    roles: dict[str, list[int]] = {}
    for placement in seen.placements:
        roles.setdefault(placement.role, []).append(placement.block)
    return Enrolment(
        name=seen.client.name,
        model=seen.client.model,
        depth=depth(seen.placements),
        rank=rank,
        examples=examples,
        roles={role: tuple(sorted(blocks)) for role, blocks in roles.items()},
        modules={p.module: (p.d_in, p.d_out) for p in seen.placements},
    )
