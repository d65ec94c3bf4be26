"""A member's folder of a run, and an engine that works in it. Knows no flwr."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from h2tune.errors import H2TuneError
from h2tune.federation.local_engine import BaseModels, LocalEngine
from h2tune.federation.run_store import RunStore
from h2tune.flower.member.join import Joined
from h2tune.flower.member.requests import Request

ROOM = 16
"""Bytes on disk for each trained parameter that a round needs: state and update, before older ones are removed."""


@contextlib.contextmanager
def opened_engine(
    joined: Joined, request: Request, models: BaseModels | None = None
) -> Iterator[LocalEngine]:
    """Yield an engine of this member alone; its folder is locked inside the block.

    Args:
        joined: The member.
        request: The message.
        models: Base models that are cached between messages.

    Raises:
        H2TuneError: The disk is full or cannot be written, or another process works in the folder.
    """
    store = _open(Path(joined.file.folder) / request.experiment, ROOM * joined.card.trainable_parameters)
    try:
        dtypes = {joined.client.name: joined.info.client.dtype}
        models = models or BaseModels(request.settings.seed)
        models.reseed(request.settings.seed)
        if joined.info.client.trust_remote_code:  # in the member's own file
            models.trusted.add(joined.info.client.model)
        yield LocalEngine([joined.client], dtypes, joined.strategy, models, store)
    finally:
        store.close()


def _open(folder: Path, room: int) -> RunStore:
    """Open a member's record of a run; error messages name no path, as the coordinator receives them.

    Args:
        folder: The folder.
        room: Bytes that must be free.

    Raises:
        H2TuneError: The disk is full or cannot be written, or another process works in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < room:
            numbers = f"{free / 1e6:.1f} MB are free, a round may take {room / 1e6:.1f}"
            raise H2TuneError(f"the disk of its folder is full: {numbers}")
        return RunStore(folder, resume=True)
    except OSError as error:
        raise H2TuneError(f"its folder cannot be written ({error.strerror})") from error
    except H2TuneError as error:
        raise H2TuneError(error.message if not error.where else f"its folder: {error.message}") from error
