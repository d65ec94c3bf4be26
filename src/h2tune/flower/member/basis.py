"""A member's side of the agreement on an anchored basis: its view of the public texts, and its frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.basis import (
    check_z,
    coordinate_count,
    encoder_coordinates,
    get_view,
    store_frames,
    view_spec,
)
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.local_engine import BaseModels
from h2tune.federation.messages import Tensors, Update, check_update
from h2tune.federation.run_store import RunStore
from h2tune.flower.member.join import Joined, join_for
from h2tune.flower.member.requests import BasisRequest
from h2tune.flower.member.workspace import opened_engine

MOST_TEXTS, MOST_CHARACTERS = 20_000, 2**22
"""The most public texts that a member reads, and the most characters of all together."""


def give_view(path: Path, request: BasisRequest, models: BaseModels | None = None) -> Update:
    """Return how a member's model reads the coordinator's public texts.

    Args:
        path: The member's file.
        request: The coordinator's message.
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: The message is not for this member, or does not fit its federation's basis.
    """
    if request.settings.basis.encoder:
        raise H2TuneError("a public encoder makes the coordinates: no member's view is needed")
    joined = _joined(path, request)
    with opened_engine(joined, request, models) as engine:
        # room=0: another process computes the frames, so that nothing need be cached for them
        reader = ModelReader(engine.base_of, request.texts, room=0, cache=default_reading_cache())
        return Update(request.client, 0, 0, {"view": get_view(joined.client, reader, engine.store)})


def take_frames(
    path: Path, request: BasisRequest, tensors: Tensors, models: BaseModels | None = None
) -> None:
    """Compute and store a member's frames of the common coordinates.

    Args:
        path: The member's file.
        request: The coordinator's message.
        tensors: Z, under "z".
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: As `give_view`, or the coordinates are invalid, or differ from those of the member's frames.
    """
    size = int(request.settings.server.shared_rank)
    check_coordinates(tensors, request)
    joined = _joined(path, request)
    with opened_engine(joined, request, models) as engine:
        reader = ModelReader(engine.base_of, request.texts, cache=default_reading_cache())
        z = coordinates_of(tensors, request, reader, engine.store)
        store_frames(joined.client, reader, z[:, :size].contiguous(), engine.store)


def check_coordinates(tensors: Tensors, request: BasisRequest) -> None:
    """Refuse a message whose one tensor is not the coordinates of the texts; with an encoder it has no tensor.

    Raises:
        H2TuneError: As `check_update`.
    """
    received, spec = Update(request.client, 0, 0, tensors), {}
    if not request.settings.basis.encoder:
        spec = view_spec(1, len(request.texts), size_of(request))[1]
    check_update(received, spec, client=request.client, round_number=0, examples=0)
    if spec:
        check_z(tensors["z"])


def coordinates_of(tensors: Tensors, request: BasisRequest, reader: ModelReader, store: RunStore) -> Tensor:
    """Return the coordinates of the texts: those of the message, or the encoder's, computed once.

    Args:
        tensors: The message's tensors, checked.
        request: The message.
        reader: Reads its texts.
        store: The member's run.

    Raises:
        H2TuneError: The encoder cannot be loaded.
    """
    encoder = request.settings.basis.encoder
    return encoder_coordinates(encoder, reader, size_of(request), store) if encoder else tensors["z"]


def size_of(request: BasisRequest) -> int:
    """Return the number of common coordinates."""
    return coordinate_count(int(request.settings.server.shared_rank), request.settings.teaching)


def texts_of(head: Mapping[str, Any]) -> list[str]:
    """Return the public texts of a message.

    Raises:
        H2TuneError: There are none, or too many.
    """
    texts = head.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise H2TuneError("the message has no texts")
    if not 8 <= len(texts) <= MOST_TEXTS or sum(map(len, texts)) > MOST_CHARACTERS:
        raise H2TuneError(
            f"{len(texts)} texts: 8 to {MOST_TEXTS} are allowed, of {MOST_CHARACTERS} characters in total"
        )
    return texts


def _joined(path: Path, request: BasisRequest) -> Joined:
    joined = join_for(path, request)
    if request.settings.basis.kind != "anchored" or request.settings.basis.count != len(request.texts):
        raise H2TuneError("the texts are not those of the settings' basis")
    return joined
