"""From a federation file to what runs: enrolments, the strategy, the members with their data. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

from h2tune import baselines
from h2tune.adapter.roles import Placement, depth, find_roles
from h2tune.config import Client, Data, Federation, Server
from h2tune.errors import H2TuneError
from h2tune.federation import privacy
from h2tune.federation.client import Member
from h2tune.federation.h2tune import H2Tune
from h2tune.federation.strategy import Strategy
from h2tune.federation.update import Enrolment, payload_bytes
from h2tune.models import Kind, empty_model, head_modules, kind_of, position_limit, read_config, summary
from h2tune.tasks.task import Splits, Task, describe_task, load_task
from h2tune.training.local import LocalTraining, check_arguments

ANCHORED_RATE = 1e-2
"""Learning rate of T between frames, which have one scale on every model; chosen on validation data, EXPERIMENTS.md."""
ADAM_BYTES = 16
"""Bytes a trained float32 parameter takes: itself, its gradient, and Adam's two moments."""


@dataclass(frozen=True)
class Seen:
    """What is known of a client without reading weights or data.

    Args:
        client: Its table in the federation file.
        kind: Whether it answers with words or through a head.
        task: Its task.
        placements: Its adapted modules.
        head_parameters: Parameters of its private head.
        base_parameters: Parameters of its base model.
        positions: Tokens its model has positions for, where it says.
        family: Its model's family.
        width: Its model's width.
    """

    client: Client
    kind: Kind
    task: Task
    placements: tuple[Placement, ...]
    head_parameters: int
    base_parameters: int
    positions: int | None
    family: str
    width: int


def see(client: Client) -> Seen:
    """Look at a client's model and task by their descriptions.

    Raises:
        H2TuneError: Names the client, and what is wrong with its model, task or rank.
    """
    where = f"client '{client.name}'"
    try:
        config = read_config(client.model)
        kind, task = kind_of(config, client.head), describe_task(client.task)
        if kind == "classifier" and task.kind != "label":
            raise H2TuneError(
                f"task '{task.name}' wants free answers, which a {config.model_type} model with a head cannot give"
            )
        model = empty_model(config, kind, max(1, len(task.labels)))
        placements = find_roles(model, client.roles)
    except H2TuneError as error:
        raise H2TuneError(
            error.message, where=", ".join(p for p in (where, error.where) if p), remedy=error.remedy
        ) from None
    narrow = min(placements, key=lambda p: min(p.d_in, p.d_out))
    most = min(narrow.d_in, narrow.d_out)
    if isinstance(client.rank, int) and client.rank > most:
        raise H2TuneError(
            f"rank {client.rank} is above what '{narrow.module}' has ({narrow.d_in} × {narrow.d_out})",
            where=where,
            remedy=f"Set rank to at most {most}",
        )
    positions = position_limit(config)
    if positions and client.max_length and client.max_length > positions:
        raise H2TuneError(
            f"max_length {client.max_length} is above the {positions} positions of its model",
            where=where,
            remedy=f"Set max_length to at most {positions}",
        )
    heads = head_modules(model) if kind == "classifier" else []
    return Seen(
        client,
        kind,
        task,
        placements,
        head_parameters=sum(p.numel() for name in heads for p in model.get_submodule(name).parameters()),
        base_parameters=sum(p.numel() for p in model.parameters()),
        positions=positions,
        **summary(config),
    )


def common_rank(federation: Federation, seen: list[Seen]) -> int:
    """Return R: as stated, or the largest stated rank; clients with rank = "auto" fit themselves below it."""
    if isinstance(federation.server.shared_rank, int):
        return federation.server.shared_rank
    stated = [s.client.rank for s in seen if isinstance(s.client.rank, int)]
    if not stated:
        raise H2TuneError(
            'every rank is "auto", so there is no common rank', remedy="Set server.shared_rank, such as 64"
        )
    return max(stated)


def rank_of(seen: Seen, federation: Federation, size: int, slots: int) -> int:
    """Return a client's rank: as stated, or the largest that its budget allows.

    Raises:
        H2TuneError: Its budget allows not even rank 1.
    """
    client = seen.client
    if isinstance(client.rank, int):
        return client.rank
    most = min(size, *(min(p.d_in, p.d_out) for p in seen.placements))
    for rank in range(most, 0, -1):
        up = bytes_up(seen, federation, rank, size, slots)
        memory = trainable_in(federation, seen, rank, size, slots) * ADAM_BYTES
        if (client.uplink_bytes is None or up <= client.uplink_bytes) and (
            client.memory_bytes is None or memory <= client.memory_bytes
        ):
            return rank
    raise H2TuneError(
        f"its budget is below what rank 1 takes ({up} bytes up, {memory} bytes of memory)",
        where=f"client '{client.name}'",
        remedy="Raise uplink_bytes or memory_bytes",
    )


def bytes_up(seen: Seen, federation: Federation, rank: int, size: int, slots: int) -> int:
    """Return the bytes of an h2tune update of a client at some rank."""
    server = federation.server.model_copy(update={"strategy": "h2tune"})
    one = enrolment(seen, rank, 0)
    strategy = build_strategy(federation.model_copy(update={"server": server}), [one], size, slots)
    return payload_bytes(strategy.upload_spec(one.name, 0))


def trainable_in(federation: Federation, seen: Seen, rank: int, size: int, slots: int) -> int:
    """Return the parameters a client trains; for a baseline those of plain LoRA, though some freeze a part."""
    if federation.server.strategy != "h2tune":
        return sum(rank * (p.d_in + p.d_out) for p in seen.placements) + seen.head_parameters
    adapter = federation.adapter
    return trainable(
        seen,
        rank,
        size,
        slots if adapter.alignment == "learned" else 0,
        scores=adapter.mask != "leading",
    )


def trainable(seen: Seen, rank: int, size: int, slots: int = 0, *, scores: bool = True) -> int:
    """Return the parameters an h2tune client trains: A, B, Δ, S and Z where they can choose, and its head.

    Args:
        seen: The client.
        rank: r.
        size: R.
        slots: D where the relation is learned, else 0.
        scores: Whether scores choose the mask.
    """
    per_module = sum(rank * (p.d_in + p.d_out) + rank * rank for p in seen.placements)
    chosen = len(seen.placements) * size * size if scores and rank < size else 0
    relation = slots * depth(seen.placements) if slots > 1 else 0
    return per_module + chosen + relation + seen.head_parameters


def enrolment(seen: Seen, rank: int, examples: int) -> Enrolment:
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


def enrol_all(federation: Federation) -> tuple[list[Seen], list[Enrolment], int, int]:
    """Return what is known of all clients, by name, with R and D.

    Raises:
        H2TuneError: Everything that can be seen to fail without reading weights or data.
    """
    check_arguments(federation.train.arguments, federation.train.scheduler)
    check_privacy(federation)
    check_secure(federation.server)
    seen = [see(client) for client in federation.sorted_clients()]
    size = common_rank(federation, seen)
    depths = [depth(s.placements) for s in seen]
    slots = federation.server.slots if isinstance(federation.server.slots, int) else max(depths)
    enrolments = [
        enrolment(s, rank_of(s, federation, size, slots), s.client.train or federation.data.train)
        for s in seen
    ]
    return seen, enrolments, size, slots


def build_strategy(federation: Federation, enrolments: list[Enrolment], size: int, slots: int) -> Strategy:
    """Return the method that the federation file names.

    Raises:
        H2TuneError: No method has that name.
    """
    server, adapter, train = federation.server, federation.adapter, federation.train
    name = server.strategy
    if name == "h2tune":
        return H2Tune(
            enrolments,
            shared_rank=size,
            slots=slots,
            mask=adapter.mask,
            alignment_mode=adapter.alignment,
            temperature=adapter.temperature,
            rate=server.learning_rate,
            weighting=server.weighting,
            wire_dtype=server.wire_dtype,
            alternation=train.alternation,
            alpha=adapter.alpha,
            dropout=adapter.dropout,
            size_weight=train.size_weight,
            drift_weight=train.drift_weight,
            distillation_weight=train.distillation_weight,
            basis=federation.basis.kind,
            basis_scale=federation.basis.scale,
            increments=server.increments,
            aggregation=server.aggregation,
            hostile=server.assumed_hostile,
            clip_norm=None if server.clip_norm == "median" else server.clip_norm,
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


def mechanism_of(federation: Federation) -> privacy.Mechanism | None:
    """Return the noise on what is shared; None if there is none."""
    asked = federation.privacy
    if asked.noise == "none":
        return None
    shares = asked.shares_of(federation.server.min_clients) if asked.noise == "member" else 1
    return privacy.Mechanism(asked.noise, asked.clip, asked.multiplier, asked.delta, shares)


def check_privacy(federation: Federation) -> None:
    """Refuse rounds that exceed the target ε, and shares of noise that a round may lack.

    Raises:
        H2TuneError: Names what would do.
    """
    mechanism = mechanism_of(federation)
    if mechanism is None:
        return
    if mechanism.quorum > federation.server.min_clients:
        raise H2TuneError(
            f"privacy.shares {mechanism.shares} needs {mechanism.quorum} members in a round (one knows its own share), "
            f"but server.min_clients is {federation.server.min_clients}",
            where="privacy",
            remedy=f"Set server.min_clients = {mechanism.quorum}, or fewer shares of more noise each",
        )
    privacy.check_budget(mechanism, federation.server.rounds, federation.privacy.target_epsilon)


def check_secure(server: Server) -> None:
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


def local_training(federation: Federation, client: Client) -> LocalTraining:
    """Return the numbers of a client's local training: its own where it states them."""
    train = federation.train
    rate = client.learning_rate or train.learning_rate
    return LocalTraining(
        alternation=train.alternation if federation.server.strategy == "h2tune" else "joint",
        rounds=federation.server.rounds,
        local_steps=client.local_steps or train.local_steps,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        learning_rates={
            "specific": rate,
            "shared": train.shared_learning_rate or (ANCHORED_RATE if federation.anchored else rate),
            "relation": train.relation_learning_rate,
        },
        weight_decay=train.weight_decay,
        scheduler=train.scheduler,
        warmup_steps=train.warmup_steps,
        max_grad_norm=train.max_grad_norm,
        arguments=train.arguments,
    )


def load_data(client: Client, data: Data, seed: int) -> tuple[Task, Splits]:
    """Load a client's task and examples.

    Raises:
        H2TuneError: Data that are not there, malformed, or too few; names the client.
    """
    try:
        task, splits = load_task(
            client.task,
            train=client.train or data.train,
            validation=client.validation if client.validation is not None else data.validation,
            test=client.test or data.test,
            seed=seed,
            part=client.part or (0, 1),
        )
        if data.evaluate == "validation" and not splits.validation:
            raise H2TuneError("there are no validation examples to evaluate on", remedy="Set data.validation")
    except H2TuneError as error:
        where = ", ".join(p for p in (f"client '{client.name}'", error.where) if p)
        raise H2TuneError(error.message, where=where, remedy=error.remedy) from None
    return (replace(task, max_length=client.max_length) if client.max_length else task), splits


def load_member(seen: Seen, enrolled: Enrolment, federation: Federation) -> Member:
    """Return a client with its data.

    Raises:
        H2TuneError: As `load_data`.
    """
    data = federation.data
    task, splits = load_data(seen.client, data, federation.seed)
    if seen.positions and task.max_length > seen.positions:  # the task's own default, not the user's word
        task = replace(task, max_length=seen.positions)
    return Member(
        enrolled,
        seen.kind,
        task,
        splits,
        local_training(federation, seen.client),
        data.evaluate,
        data.evaluate_batch_size,
        federation.seed,
        data.evaluate_rounds,
    )
