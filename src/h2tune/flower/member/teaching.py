"""A member's part of the exchange before the first round: what it knows, and its lesson."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.messages import Tensors, Update, check_tensors
from h2tune.federation.teaching.exchange import TeachingExchange
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.flower.member.basis import check_coordinates, coordinates_of, size_of
from h2tune.flower.member.join import Joined, join_for
from h2tune.flower.member.requests import BasisRequest
from h2tune.flower.member.workspace import opened_engine
from h2tune.flower.messages import WHY

NORM = 1e4
"""The largest norm of what peers send together: each of at most ten thousand has norm one."""


def give_knowledge(
    path: Path, request: BasisRequest, tensors: Tensors, models: BaseModels | None = None
) -> tuple[dict[str, Any], Update]:
    """Return facts and tensors of what a member knows about the public texts.

    Args:
        path: The member's file.
        request: The coordinator's message.
        tensors: The coordinates of the texts, under "z"; none with an encoder.
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: The message is not for this member, or the federation exchanges no knowledge.
    """
    joined = _joined(path, request)
    check_coordinates(tensors, request)
    with opened_engine(joined, request, models) as engine:
        sent, facts = _exchange(request, engine, tensors).upload(joined.client)
    return facts, Update(request.client, 0, 0, sent)


def take_lesson(
    path: Path, request: BasisRequest, tensors: Tensors, models: BaseModels | None = None
) -> dict[str, Any]:
    """Prepare and store a member's lesson; return its decision.

    Args:
        path: The member's file.
        request: The coordinator's message.
        tensors: The coordinates of the texts, under "z" (none with an encoder), and what the peers sent together.
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: As `give_knowledge`, or what the peers sent is not valid.
    """
    joined = _joined(path, request)
    received = {key: tensor for key, tensor in tensors.items() if key != "z"}
    coordinates = {key: t for key, t in tensors.items() if key == "z"}
    check_coordinates(coordinates, request)
    if received:
        classes = len(joined.client.task.labels)
        spec = KNOWLEDGE["directions"].specs(len(request.texts), size_of(request), classes)[1]
        check_tensors(received, spec, "lesson")
        if any(float(tensor.norm()) > NORM for tensor in received.values()):
            raise H2TuneError("the peers' directions are larger than those of honest members")
    with opened_engine(joined, request, models) as engine:
        lesson = _exchange(request, engine, coordinates).lesson(joined.client, received)
    facts = {WHY if key == "reason" else key: value for key, value in lesson.facts.items()}
    return facts if request.settings.privacy.metrics == "shared" else {"taken": facts["taken"]}


def _joined(path: Path, request: BasisRequest) -> Joined:
    if request.settings.teaching != "directions":
        raise H2TuneError("this federation exchanges no knowledge")
    return join_for(path, request)


def _exchange(request: BasisRequest, engine: LocalEngine, tensors: Tensors) -> TeachingExchange:
    reader = ModelReader(engine.base_of, request.texts, room=0, cache=default_reading_cache())
    z = coordinates_of(tensors, request, reader, engine.store)
    return TeachingExchange(request.settings.teaching, reader, engine.store, z)
