"""What a member does when it is asked, by kind of message. Imports all that training needs."""

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
from h2tune.flower.files import read_settings
from h2tune.flower.member.basis import give_view, take_frames, texts_of
from h2tune.flower.member.round import experiment_of, join, take_part
from h2tune.flower.member.secure import Masks, answer
from h2tune.flower.member.teaching import give_knowledge, take_lesson
from h2tune.flower.messages import read_head, text

Answer = tuple[dict[str, Any], Update | None]


def answered(
    kind: str, file: Path, head: str, tensors: bytes | None, models: BaseModels | None = None
) -> tuple[str, bytes | None]:
    """Return the answer to a message as it travels; what goes wrong is a reason, never a traceback with paths.

    Args:
        kind: `"enrol"`, `"train"`, …: what is asked.
        file: The member's file.
        head: The message's JSON.
        tensors: Its safetensors file, if it brings one.
        models: Base models that stay in memory between messages.

    Returns:
        JSON, and a safetensors file or None.
    """
    try:
        down = None if tensors is None else from_bytes(tensors)
        told, update = perform(kind, file, read_head(head), down, models)
    except Exception as error:  # Flower would send the exception's text, which may name paths or quote data
        traceback.print_exc(file=sys.stderr)
        told, update = {"reason": f"{reason(error)}; the member's own log says more"}, None
    return json.dumps(told), None if update is None else to_bytes(update)


def reason(error: Exception) -> str:
    """Return what an error comes to in words that name no path and quote no data."""
    if isinstance(error, H2TuneError) and not error.where:
        return error.message
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__} ({os.strerror(error.errno)})"  # such as a full disk
    return type(error).__name__


def perform(
    kind: str,
    file: Path,
    head: Mapping[str, Any],
    down: Update | None,
    models: BaseModels | None = None,
) -> Answer:
    """Do what a message asks.

    Raises:
        H2TuneError: The message is malformed or not for this member, or this member's files cannot be used.
    """
    settings = read_settings(text(head, "settings"))
    if kind == "enrol":
        return {"card": join(file, settings).card.model_dump_json()}, None
    experiment = text(head, "experiment")
    if kind in ("keys", "shares", "reveal"):
        return answer(kind, file, settings, experiment_of(experiment), head), None
    if kind == "view":
        return {}, give_view(file, settings, experiment, text(head, "client"), texts_of(head), models)
    if down is None:
        raise H2TuneError("the message holds no tensors")
    if kind == "frames":
        take_frames(file, settings, experiment, text(head, "client"), texts_of(head), down.tensors, models)
        return {}, None
    if kind == "knowledge":
        return give_knowledge(
            file, settings, experiment, text(head, "client"), texts_of(head), down.tensors, models
        )
    if kind == "lesson":
        member = text(head, "client")
        return take_lesson(file, settings, experiment, member, texts_of(head), down.tensors, models), None
    if kind != "train":
        raise H2TuneError("the message asks for what this member does not know")
    told = take_part(
        file,
        settings,
        experiment,
        down.client,
        down.round,
        text(head, "digest"),
        down.tensors,
        Masks.of(head),
        models,
    )
    if told.update is None:
        return {"reason": told.reason}, None
    return {"events": json.dumps(list(told.events))}, told.update
