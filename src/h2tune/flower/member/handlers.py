"""A member's answer to each kind of message. Imports everything that training needs."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.local_engine import BaseModels
from h2tune.federation.messages import Update, from_bytes, to_bytes
from h2tune.flower.load import read_settings
from h2tune.flower.member import secure
from h2tune.flower.member.basis import give_view, take_frames, texts_of
from h2tune.flower.member.join import checked_experiment, join
from h2tune.flower.member.requests import BasisRequest, RoundRequest
from h2tune.flower.member.round import take_part
from h2tune.flower.member.take_back import rounds_of
from h2tune.flower.member.teaching import give_knowledge, take_lesson
from h2tune.flower.messages import read_head, text

Answer = tuple[dict[str, Any], Update | None]


def respond(
    kind: str, file: Path, head: str, tensors: bytes | None, models: BaseModels | None = None
) -> tuple[str, bytes | None]:
    """Return the encoded answer to an encoded message; an error becomes a reason, without a traceback or a path.

    Args:
        kind: Kind of the message: `"enrol"`, `"train"`, …
        file: The member's file.
        head: The message's JSON.
        tensors: Its safetensors file, if it has one.
        models: Base models that are cached between messages.

    Returns:
        JSON, and a safetensors file or None.
    """
    try:
        down = None if tensors is None else from_bytes(tensors)
        answer, update = handle(kind, file, read_head(head), down, models)
    except Exception as error:  # Flower would send the exception's text, which may name paths or quote data
        traceback.print_exc(file=sys.stderr)
        answer, update = {"reason": f"{reason(error)}; the member's own log says more"}, None
    return json.dumps(answer), None if update is None else to_bytes(update)


def reason(error: Exception) -> str:
    """Return a description of an error that names no path and quotes no data."""
    if isinstance(error, H2TuneError) and not error.where:
        return error.message
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__} ({os.strerror(error.errno)})"  # such as a full disk
    return type(error).__name__


def handle(
    kind: str,
    file: Path,
    head: Mapping[str, Any],
    down: Update | None,
    models: BaseModels | None = None,
) -> Answer:
    """Return the answer to a message.

    Raises:
        H2TuneError: The message is malformed or not for this member, or this member's files cannot be used.
    """
    settings = read_settings(text(head, "settings"))
    if kind == "enrol":
        return {"card": join(file, settings).card.model_dump_json()}, None
    experiment = text(head, "experiment")
    if kind in secure.KINDS:
        return secure.handle(kind, file, settings, checked_experiment(experiment), head), None
    if kind == "view":
        return {}, give_view(
            file, BasisRequest(settings, experiment, text(head, "client"), texts_of(head)), models
        )
    if down is None:
        raise H2TuneError("the message has no tensors")
    if kind == "frames":
        request = BasisRequest(settings, experiment, text(head, "client"), texts_of(head))
        take_frames(file, request, down.tensors, models)
        return {}, None
    if kind in ("knowledge", "lesson"):
        request = BasisRequest(settings, experiment, text(head, "client"), texts_of(head))
        if kind == "knowledge":
            return give_knowledge(file, request, down.tensors, models)
        return take_lesson(file, request, down.tensors, models), None
    if kind != "train":
        raise H2TuneError("the message is of a kind that this member does not know")
    digest, masks = text(head, "digest"), secure.Masks.of(head)
    back = rounds_of(head)
    train = RoundRequest(settings, experiment, down.client, down.round, digest, down.tensors, masks, back)
    reply = take_part(file, train, models)
    if reply.update is None:
        return {"reason": reply.reason}, None
    return {"events": json.dumps(list(reply.events))}, reply.update
