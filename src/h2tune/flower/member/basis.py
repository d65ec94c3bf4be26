"""A member's part of agreeing on an anchored basis: its view of the public texts, and its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune.basis import coordinate_count, keep_frames, own_view, view_spec
from h2tune.federation.h2tune.model_reader import ModelReader
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.local_engine import BaseModels
from h2tune.federation.messages import Tensors, Update, check_update
from h2tune.flower.files import Settings
from h2tune.flower.member.round import Joined, addressed, at_work

MOST_TEXTS, MOST_CHARACTERS = 20_000, 2**22
"""The most public texts that a member reads, and the most characters of all together."""


def give_view(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    models: BaseModels | None = None,
) -> Update:
    """Return how a member's model reads the coordinator's public texts.

    Raises:
        H2TuneError: The message is not for this member, or not of its federation's basis.
    """
    joined = _reader(path, settings, experiment, name, texts)
    with at_work(joined, settings, experiment, models) as engine:
        # the frames are another process's
        reader = ModelReader(engine.base_of, texts, room=0, cache=default_reading_cache())
        return Update(name, 0, 0, {"view": own_view(joined.member, reader, engine.store)})


def take_frames(
    path: Path,
    settings: Settings,
    experiment: str,
    name: str,
    texts: Sequence[str],
    tensors: Tensors,
    models: BaseModels | None = None,
) -> None:
    """Compute and keep a member's frames of the coordinates that all agreed on.

    Raises:
        H2TuneError: As `give_view`, or the coordinates are none, or others than this member has frames of.
    """
    size = int(settings.server.shared_rank)
    check_coordinates(tensors, settings, name, texts)
    joined = _reader(path, settings, experiment, name, texts)
    with at_work(joined, settings, experiment, models) as engine:
        reader = ModelReader(engine.base_of, texts, cache=default_reading_cache())
        keep_frames(joined.member, reader, tensors["z"][:, :size].contiguous(), engine.store)


def check_coordinates(tensors: Tensors, settings: Settings, name: str, texts: Sequence[str]) -> None:
    """Refuse a message whose one tensor is not the coordinates of the texts.

    Raises:
        H2TuneError: As `check_update`.
    """
    count = coordinate_count(int(settings.server.shared_rank), settings.teaching)
    spec = view_spec(1, len(texts), count)[1]
    check_update(Update(name, 0, 0, tensors), spec, client=name, round_number=0, examples=0)


def texts_of(head: Mapping[str, Any]) -> list[str]:
    """Return the public texts that a message brings.

    Raises:
        H2TuneError: There are none, or too many.
    """
    texts = head.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise H2TuneError("the message brings no texts")
    if not 8 <= len(texts) <= MOST_TEXTS or sum(map(len, texts)) > MOST_CHARACTERS:
        raise H2TuneError(
            f"8 to {MOST_TEXTS} texts of {MOST_CHARACTERS} characters in all are read, not {len(texts)}"
        )
    return texts


def _reader(path: Path, settings: Settings, experiment: str, name: str, texts: Sequence[str]) -> Joined:
    joined = addressed(path, settings, experiment, name)
    if settings.basis.kind != "anchored" or settings.basis.count != len(texts):
        raise H2TuneError("the texts are not those of the settings' basis")
    return joined
