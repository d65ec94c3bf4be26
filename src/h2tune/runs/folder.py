"""What a run folder holds, and what is asked of it; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from h2tune.config import ClientConfig, FederationConfig, load_resolved
from h2tune.errors import H2TuneError, nearest
from h2tune.events import read_events

SPLITS = ("test", "validation")
FORMATS = ("lora", "adapter", "merged")
NEVER_TRAINED = "it took part in no round, or failed in all"
"""Why a client of a finished run has no adapter."""


def read_run(folder: Path) -> FederationConfig:
    """Return the resolved federation file of a run.

    Raises:
        H2TuneError: The folder is not a run folder.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise H2TuneError(
            "not a run folder: it has no config.toml", where=str(folder), remedy="Give a folder of h2tune run"
        )
    return load_resolved(path)


def adapter_folder(folder: Path, client: str, form: str) -> Path:
    """Return the folder of a client's adapter, in PEFT's format ("adapter") or as plain LoRA ("lora").

    Raises:
        H2TuneError: The client has no adapter, or not yet.
    """
    path = folder / "clients" / client / form
    if path.is_dir():
        return path
    if _finished(folder):
        raise H2TuneError(
            f"client '{client}' has no adapter: {NEVER_TRAINED}",
            where=str(folder),
            remedy="If server.participation left it out, raise server.rounds, and use h2tune run --resume",
        )
    raise H2TuneError(
        f"client '{client}' has no adapter yet",
        where=str(folder),
        remedy="Finish the run with h2tune run --resume",
    )


def client_of(federation: FederationConfig, name: str, folder: Path) -> ClientConfig:
    """Return a client of a run.

    Raises:
        H2TuneError: The run has no client of that name.
    """
    clients = {client.name: client for client in federation.client}
    if name not in clients:
        raise H2TuneError(
            f"no client '{name}'{nearest(name, list(clients))}",
            where=str(folder),
            remedy=f"Clients: {', '.join(sorted(clients))}",
        )
    return clients[name]


def trained_clients(folder: Path, names: Sequence[str]) -> list[ClientConfig]:
    """Return clients of a run that have adapters; if no names are given, all clients that it trained.

    Raises:
        H2TuneError: The folder is not a run folder, a client is unknown, or has no adapter.
    """
    federation = read_run(folder)
    chosen = [client_of(federation, name, folder) for name in names] or list(federation.sorted_clients())
    trained = [client for client in chosen if (folder / "clients" / client.name / "adapter").is_dir()]
    if trained and not names and len(trained) < len(chosen) and _finished(folder):
        return trained  # some were never drawn
    for client in chosen:
        adapter_folder(folder, client.name, "adapter")
    return chosen


def _finished(folder: Path) -> bool:
    """Return whether a run came to its end."""
    path = folder / "events.jsonl"
    return path.is_file() and any(event["event"] == "run_finished" for event in read_events(path))


def check_validation(folder: Path, names: Sequence[str]) -> None:
    """Refuse to score on validation examples that a run has not set aside.

    Raises:
        H2TuneError: Names a client without any.
    """
    data = read_run(folder).data
    for client in trained_clients(folder, names):
        wanted = data.validation if client.validation is None else client.validation
        own = not isinstance(client.task, str) and "validation" in client.task.sources
        if not wanted and not own:
            raise H2TuneError(
                f"client '{client.name}' has no validation examples",
                where="--split",
                remedy="Use --split test, or run with data.validation above 0",
            )


def check_split(split: str) -> None:
    """Refuse an unknown split.

    Raises:
        H2TuneError: Names the known ones.
    """
    if split not in SPLITS:
        raise H2TuneError(
            f"no split '{split}'{nearest(split, SPLITS)}",
            where="--split",
            remedy=f"Use {' or '.join(SPLITS)}",
        )


def check_export(out: Path, form: str) -> None:
    """Refuse an unknown format, and a folder that exists.

    Raises:
        H2TuneError: Says which.
    """
    if form not in FORMATS:
        raise H2TuneError(
            f"no format '{form}'{nearest(form, FORMATS)}",
            where="--format",
            remedy="Use lora, adapter or merged",
        )
    if out.exists():
        raise H2TuneError("already exists", where=str(out), remedy="Name a folder that does not exist")
