"""A member's part of the exchange before the first round: what it knows, and its lesson."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.messages import Tensors, Update, check_tensors
from h2tune.federation.teaching.exchange import TeachingExchange
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.flower.files import Settings
from h2tune.flower.member.basis import check_coordinates
from h2tune.flower.member.round import Joined, addressed, at_work

NORM = 1e4
"""The largest norm of what peers send together: each of at most ten thousand has norm one."""


def give_knowledge(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    tensors: Tensors,
    models: BaseModels | None = None,
) -> tuple[dict[str, Any], Update]:
    """Return facts and tensors of what a member knows about the public texts.

    Raises:
        H2TuneError: The message is not for this member, or the federation exchanges no knowledge.
    """
    joined = _learner(path, settings, experiment, name)
    check_coordinates(tensors, settings, name, texts)
    with at_work(joined, settings, experiment, models) as engine:
        sent, facts = _exchange(settings, engine, texts, tensors["z"]).upload(joined.member)
    return facts, Update(name, 0, 0, sent)


def take_lesson(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    tensors: Tensors,
    models: BaseModels | None = None,
) -> dict[str, Any]:
    """Prepare and keep a member's lesson; return its decision.

    Raises:
        H2TuneError: As `give_knowledge`, or what the peers sent is not valid.
    """
    joined = _learner(path, settings, experiment, name)
    received = {key: tensor for key, tensor in tensors.items() if key != "z"}
    check_coordinates({k: t for k, t in tensors.items() if k == "z"}, settings, name, texts)
    classes, width = len(joined.member.task.labels), tensors["z"].shape[1]
    if received:
        spec = KNOWLEDGE["directions"].specs(len(texts), width, classes)[1]
        check_tensors(received, spec, "lesson")
        if any(float(tensor.norm()) > NORM for tensor in received.values()):
            raise H2TuneError("what the peers sent is larger than they can send together")
    with at_work(joined, settings, experiment, models) as engine:
        lesson = _exchange(settings, engine, texts, tensors["z"]).lesson(joined.member, received)
    facts = dict(lesson.facts)
    if settings.privacy.metrics != "shared":
        facts = {"taken": facts["taken"]}
    return facts


def _learner(path: Path, settings: Settings, experiment: str, name: str) -> Joined:
    if settings.teaching != "directions":
        raise H2TuneError("this federation exchanges no knowledge")
    return addressed(path, settings, experiment, name)


def _exchange(settings: Settings, engine: LocalEngine, texts: Sequence[str], z: Tensor) -> TeachingExchange:
    reader = ModelReader(engine.base_of, texts, room=0, cache=default_reading_cache())
    return TeachingExchange(settings.teaching, reader, engine.store, z)
