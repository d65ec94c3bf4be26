"""A client's model and task as their configurations describe them. No weights and no data are read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from h2tune.adapter.roles import Placement, depth, find_roles
from h2tune.config import ClientConfig
from h2tune.errors import H2TuneError, within
from h2tune.federation.messages import Enrolment
from h2tune.heads import head_modules
from h2tune.models import Kind, empty_model, kind_of, position_limit, read_config, summary, vocabulary
from h2tune.tasks.load import describe_task
from h2tune.tasks.task import Task


def check_encoder(model: str) -> None:
    """Refuse a model that cannot be the public encoder of an anchored basis.

    Raises:
        H2TuneError: It cannot be found, or is a decoder.
    """
    if model and kind_of(read_config(model)) != "classifier":
        raise H2TuneError(
            f"{model} is a decoder", where="basis.encoder", remedy="Name an encoder, such as a small BERT"
        )


@dataclass(frozen=True)
class ModelInfo:
    """A model as a client uses it, described without reading weights.

    Args:
        kind: "causal" (scored by the likelihood of words) or "classifier" (scored by a head).
        placements: Its adapted modules.
        head_parameters: Parameters of its private head.
        base_parameters: Parameters of its base model.
        positions: Maximal number of tokens, where the configuration states it.
        vocabulary: Number of tokens that it knows, where the configuration states it.
        family: Its family, `config.model_type`.
        width: Its hidden size.
    """

    kind: Kind
    placements: tuple[Placement, ...]
    head_parameters: int
    base_parameters: int
    positions: int | None
    vocabulary: int | None
    family: str
    width: int


@dataclass(frozen=True)
class ClientInfo(ModelInfo):
    """A client, described without reading weights or data.

    Args:
        client: Its table in the federation file.
        task: Its task.
    """

    client: ClientConfig
    task: Task


ModelInfos = dict[tuple[Any, ...], ModelInfo]
"""Cache of the models of one federation; clients may share them."""


def client_info(client: ClientConfig, models: ModelInfos | None = None) -> ClientInfo:
    """Return the description of a client's model and task.

    Args:
        client: Its table in the federation file.
        models: Cache of models already described; this client's is added.

    Raises:
        H2TuneError: Names the client, and the problem with its model, task or rank.
    """
    where = f"client '{client.name}'"
    models = {} if models is None else models
    with within(where):
        task = describe_task(client.task)
        roles = None if client.roles is None else tuple(client.roles.items())
        key = (client.model, client.head, roles, len(task.labels), client.trust_remote_code)
        if key not in models:
            models[key] = _model_info(client, max(1, len(task.labels)))
        model = models[key]
        if model.kind == "classifier" and task.kind != "label":
            raise H2TuneError(
                f"task '{task.name}' needs generated answers, which a {model.family} model with a head cannot give"
            )
        if task.scorer == "rouge" and find_spec("rouge_score") is None:
            raise H2TuneError(
                'scorer = "rouge" needs the package rouge-score', remedy="pip install 'h2tune[text]'"
            )
    narrow = min(model.placements, key=lambda p: min(p.d_in, p.d_out))
    most = min(narrow.d_in, narrow.d_out)
    if isinstance(client.rank, int) and client.rank > most:
        raise H2TuneError(
            f"rank {client.rank} exceeds the size of '{narrow.module}' ({narrow.d_in} × {narrow.d_out})",
            where=where,
            remedy=f"Set rank to at most {most}",
        )
    if model.positions and client.max_length and client.max_length > model.positions:
        raise H2TuneError(
            f"max_length {client.max_length} exceeds the {model.positions} positions of its model",
            where=where,
            remedy=f"Set max_length to at most {model.positions}",
        )
    return ClientInfo(**vars(model), client=client, task=task)


def _model_info(client: ClientConfig, labels: int) -> ModelInfo:
    config = read_config(client.model, code=client.trust_remote_code)
    kind = kind_of(config, client.head)
    model = empty_model(config, kind, labels, code=client.trust_remote_code)
    heads = head_modules(model) if kind == "classifier" else []
    return ModelInfo(
        kind,
        find_roles(model, client.roles),
        head_parameters=sum(p.numel() for name in heads for p in model.get_submodule(name).parameters()),
        base_parameters=sum(p.numel() for p in model.parameters()),
        positions=position_limit(config),
        vocabulary=vocabulary(config),
        **summary(config),
    )


def enrolment(info: ClientInfo, rank: int, examples: int) -> Enrolment:
    """Return a client's enrolment: the facts that the server has about it."""
    roles: dict[str, list[int]] = {}
    for placement in info.placements:
        roles.setdefault(placement.role, []).append(placement.block)
    return Enrolment(
        name=info.client.name,
        model=info.client.model,
        depth=depth(info.placements),
        rank=rank,
        examples=examples,
        roles={role: tuple(sorted(blocks)) for role, blocks in roles.items()},
        modules={p.module: (p.d_in, p.d_out) for p in info.placements},
    )
