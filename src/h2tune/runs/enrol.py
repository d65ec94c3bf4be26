"""From a federation file to enrolments, and to clients with their data. No weights are read."""

from __future__ import annotations

from dataclasses import replace

from h2tune.adapter.roles import depth
from h2tune.config import ClientConfig, DataConfig, FederationConfig
from h2tune.errors import H2TuneError, within
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Enrolment
from h2tune.runs.build import check_privacy, check_secure
from h2tune.runs.model_info import ClientInfo, ModelInfos, check_encoder, client_info, enrolment
from h2tune.runs.ranks import common_rank, rank_of
from h2tune.tasks.load import load_task
from h2tune.tasks.task import Splits, Task
from h2tune.training.arguments import check_arguments
from h2tune.training.local import LocalTraining

ANCHORED_RATE = 1e-2
"""Learning rate of T in an anchored basis, where frames have the same scale on every model; tuned on validation data
(EXPERIMENTS.md)."""


def enrol_all(federation: FederationConfig) -> tuple[list[ClientInfo], list[Enrolment], int, int]:
    """Return all clients' model infos and enrolments, by name, with R and D.

    Raises:
        H2TuneError: Every problem that can be detected without reading weights or data.
    """
    check_arguments(federation.train.arguments, federation.train.scheduler)
    check_privacy(federation)
    check_secure(federation.server)
    check_encoder(federation.basis.encoder)
    models: ModelInfos = {}
    infos = [client_info(client, models) for client in federation.sorted_clients()]
    for info in infos:
        if federation.server.strategy == "linear-head" and info.kind == "causal":
            raise H2TuneError(
                "a decoder that answers in words has no head to train",
                where=f"client '{info.client.name}', server.strategy = linear-head",
                remedy='Set head = "classifier" for this client, or use another strategy',
            )
    size = common_rank(federation, infos)
    depths = [depth(info.placements) for info in infos]
    slots = federation.server.slots if isinstance(federation.server.slots, int) else max(depths)
    enrolments = [
        # how many rows there are shows when they are read: see `load_client`
        enrolment(i, rank_of(i, federation, size, slots), i.client.examples(federation.data) or 0)
        for i in infos
    ]
    return infos, enrolments, size, slots


def local_training(federation: FederationConfig, client: ClientConfig) -> LocalTraining:
    """Return the settings of a client's local training; a client's own values take precedence."""
    train, experimental = federation.train, federation.experimental
    rate = client.learning_rate or train.learning_rate
    return LocalTraining(
        alternation=experimental.alternation if federation.server.strategy == "h2tune" else "joint",
        rounds=federation.server.rounds,
        local_steps=client.local_steps or train.local_steps,
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        learning_rates={
            "specific": rate,
            "shared": experimental.shared_learning_rate or (ANCHORED_RATE if federation.anchored else rate),
            "relation": experimental.relation_learning_rate,
        },
        weight_decay=train.weight_decay,
        scheduler=train.scheduler,
        warmup_steps=train.warmup_steps,
        max_grad_norm=train.max_grad_norm,
        arguments=train.arguments,
        normalised=experimental.shared_optimizer == "normalised",
        public_batch=experimental.public_batch,
        teacher_labels=experimental.teacher_labels,
    )


def load_data(
    client: ClientConfig, data: DataConfig, seed: int, part: tuple[int, int]
) -> tuple[Task, Splits]:
    """Load a client's task and examples; `part` is (k, n): the k-th of n parts of the training data.

    Raises:
        H2TuneError: Data that are missing, malformed, or too few; names the client.
    """
    with within(f"client '{client.name}'"):
        task, splits = load_task(
            client.task,
            train=client.train if client.train is not None else data.train,
            validation=client.validation if client.validation is not None else data.validation,
            test=client.test or data.test,
            seed=seed,
            part=part,
        )
        if data.evaluate == "validation" and not splits.validation:
            raise H2TuneError("there are no validation examples to evaluate on", remedy="Set data.validation")
    return (replace(task, max_length=client.max_length) if client.max_length else task), splits


def load_client(info: ClientInfo, enrolled: Enrolment, federation: FederationConfig) -> LocalClient:
    """Return a client with its data, and in its enrolment the number of its training examples.

    Raises:
        H2TuneError: As `load_data`.
    """
    part = federation.experimental.part_of(info.client.name)
    task, splits = load_data(info.client, federation.data, federation.seed, part)
    enrolled = replace(enrolled, examples=len(splits.train))
    return _local_client(info, enrolled, federation, task, splits)


def without_data(info: ClientInfo, enrolled: Enrolment, federation: FederationConfig) -> LocalClient:
    """Return a client without examples, for what needs its model alone."""
    return _local_client(info, enrolled, federation, info.task, Splits((), (), ()))


def _local_client(
    info: ClientInfo, enrolled: Enrolment, federation: FederationConfig, task: Task, splits: Splits
) -> LocalClient:
    data = federation.data
    # only a task's own default can be larger: a larger max_length of the client was refused
    if info.positions:
        task = replace(task, max_length=min(task.max_length, info.positions), positions=info.positions)
    return LocalClient(
        enrolled,
        info.kind,
        task,
        splits,
        local_training(federation, info.client),
        data.evaluate,
        data.evaluate_batch_size,
        federation.seed,
        federation.experimental.evaluate_rounds,
        federation.experimental.head_start,
        info.vocabulary,
    )
