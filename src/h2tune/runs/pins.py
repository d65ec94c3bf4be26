"""Pins the data sets of the Hub that a federation names to a commit, so that a resumed run reads the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from h2tune.config import FederationConfig, load_resolved
from h2tune.errors import within
from h2tune.tasks.hub import is_folder, newest
from h2tune.tasks.own_task import OwnTask


def pinned(federation: FederationConfig, folders: Iterable[Path]) -> FederationConfig:
    """Return a federation whose data sets have a commit: that of a run that read them before, or the newest.

    Args:
        federation: The file.
        folders: Run folders, whether there is a run in them or not; the first that has a data set counts.

    Raises:
        H2TuneError: The Hub cannot be reached, or has no such data set.
    """
    if not any(_of_hub(client.task) for client in federation.client):
        return federation
    before = _commits(folders)
    clients = []
    for client in federation.client:
        task = client.task
        if isinstance(task, OwnTask) and (dataset := _of_hub(task)):
            with within(f"client '{client.name}'"):
                known = before.get(dataset) if task.revision is None else None
                commit = known or newest(dataset, task.revision)
            task = task.model_copy(update={"revision": commit})
        clients.append(client.model_copy(update={"task": task}))
    return federation.model_copy(update={"client": tuple(clients)})


def _commits(folders: Iterable[Path]) -> dict[str, str]:
    """Return the commit of each data set in the run folders."""
    known: dict[str, str] = {}
    for path in (folder / "config.toml" for folder in folders):
        for client in load_resolved(path).client if path.exists() else ():
            if isinstance(client.task, OwnTask) and client.task.dataset and client.task.revision:
                known.setdefault(client.task.dataset, client.task.revision)
    return known


def _of_hub(task: str | OwnTask) -> str | None:
    """Return the id of a task's data set; None where it is in files or in a folder."""
    if isinstance(task, OwnTask) and task.dataset and not is_folder(task.dataset):
        return task.dataset
    return None
