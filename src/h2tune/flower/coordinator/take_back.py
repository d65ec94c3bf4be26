"""Takes rounds of a coordinator's run back; its members go back with the next message of a round. Knows no flwr."""

from __future__ import annotations

from pathlib import Path

from h2tune.errors import H2TuneError
from h2tune.flower import audit
from h2tune.flower.files import CoordinatorFile


def take_back_rounds(coordinator: CoordinatorFile, number: int) -> None:
    """Take back round `number` and all after it.

    Args:
        coordinator: The coordinator's file.
        number: A round, from 0.

    Raises:
        H2TuneError: There is no run, it is running, it has noise, or it cannot go back so far.
    """
    folder = Path(coordinator.folder)
    if not (folder / "events.jsonl").exists():
        raise H2TuneError(
            "there is no run to take rounds back from", where=str(folder), remedy="Check the folder"
        )
    if coordinator.privacy.noise != "none":
        message, remedy = "rounds with noise cannot be taken back: their ε is spent", "Start a new run"
        raise H2TuneError(message, where="privacy.noise", remedy=remedy)
    from h2tune.federation.run_store import RunStore
    from h2tune.federation.take_back import take_back

    store = RunStore(folder, resume=True)
    try:
        key = None if coordinator.key is None else Path(coordinator.key)
        store.follow = audit.follow(store.events_file, folder / audit.FILE, key)
        take_back(store, number)
    finally:
        store.close()
