"""Reading and writing a federation file."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from h2tune.config.problems import problem
from h2tune.config.resolve import resolve
from h2tune.config.sections import FederationConfig
from h2tune.errors import H2TuneError, nearest, within
from h2tune.own_code import absolute_reference, is_reference
from h2tune.tasks.own_task import OwnTask

FORMAT = 4
"""Number of the format of `config.toml` in a run folder; a new one for every change that old files do not survive."""


class Stated:
    """A federation as a user states it, before what its settings imply is filled in.

    Args:
        raw: The content of a federation file.
        where: What errors call it.
        folder: Folder from which relative paths start.
    """

    def __init__(self, raw: Mapping[str, Any], where: str, folder: Path) -> None:
        self.raw, self.where, self.folder = raw, where, folder

    @classmethod
    def read(cls, path: Path) -> Stated:
        """Read a federation file.

        Raises:
            H2TuneError: The file is missing, or is not TOML.
        """
        return Stated(read_toml(path, "Give the path of a federation file"), str(path), path.parent)

    def resolved(self, overrides: Sequence[str] = ()) -> FederationConfig:
        """Return the federation with overrides, resolved; arguments and errors as in `load`."""
        raw = copy.deepcopy(dict(self.raw))
        for override in overrides:
            _apply(raw, override)
        return parse(raw, self.where, self.folder)


def load(path: Path, overrides: Sequence[str] = ()) -> FederationConfig:
    """Read a federation file and resolve it.

    Args:
        path: A TOML file.
        overrides: Changes such as `"train.learning_rate=1e-4"` or `"client.films.rank=4"`; the value is TOML, and a
            value that is not TOML is taken as a string.

    Raises:
        H2TuneError: The file is missing, is not TOML, or has a key or value that is not allowed; one line with the key.
    """
    return Stated.read(path).resolved(overrides)


def load_resolved(path: Path) -> FederationConfig:
    """Read `config.toml` of a run folder, where every path is absolute and every implied value is stated.

    Raises:
        H2TuneError: As `load`; or a version of h2tune with another format wrote the file.
    """
    raw = read_toml(path, "Give the folder of a run")
    if "format" not in raw:
        raise _other_format(str(path), "no format number")
    return parse(raw, str(path))


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """Return the content of a TOML file; a byte order mark at its start is accepted.

    Args:
        path: The file.
        remedy: What to do where there is no such file.

    Raises:
        H2TuneError: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise H2TuneError("no such file", where=str(path), remedy=remedy) from None
    except OSError as error:
        raise H2TuneError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise H2TuneError(
            f"is not UTF-8 ({error.reason})", where=str(path), remedy="Save the file as UTF-8"
        ) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise H2TuneError(
            f"is not valid TOML: {error}", where=str(path), remedy="See https://toml.io"
        ) from None


def parse(raw: Mapping[str, Any], where: str, folder: Path | None = None) -> FederationConfig:
    """Validate and resolve the content of a federation file.

    Args:
        raw: The content; a format number, as `dump` writes it, must be this version's.
        where: What errors call it.
        folder: Folder from which relative paths start; without one they stay as they are.

    Raises:
        H2TuneError: A key or value is not allowed, or two settings contradict each other.
    """
    content = dict(raw)
    written = content.pop("format", FORMAT)
    if written != FORMAT:
        raise _other_format(where, f"format {written!r:.20}")
    try:
        stated = FederationConfig.model_validate(content)
    except ValidationError as error:
        raise problem(error, FederationConfig, content, where) from None
    with within(where):
        federation = resolve(stated)
    return federation if folder is None else _absolute(federation, folder.resolve())


def _other_format(where: str, found: str) -> H2TuneError:
    return H2TuneError(
        f"was written by a version of h2tune whose runs this one cannot read ({found}; this version reads format "
        f"{FORMAT})",
        where=where,
        remedy="Start a new run with another --out, or use the version that the first line of events.jsonl names",
    )


def dump(federation: FederationConfig) -> dict[str, Any]:
    """Return a resolved file as plain values, without what is None; `parse` reads it back to the same federation."""
    plain: dict[str, Any] = json.loads(federation.model_dump_json(exclude_none=True))
    return {"format": FORMAT, **plain}


def _apply(raw: dict[str, Any], override: str) -> None:
    """Change one key of a file's content."""
    key, separator, text = override.partition("=")
    if not separator:
        raise H2TuneError(
            f"--set takes section.key=value, not '{override}'", remedy="For example --set train.batch_size=4"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    table: Any = raw
    for i, part in enumerate(path):
        if isinstance(table, list):
            named = [entry for entry in table if isinstance(entry, dict) and entry.get("name") == part]
            if not named:
                names = [str(entry.get("name")) for entry in table if isinstance(entry, dict)]
                raise H2TuneError(f"no client is called '{part}'{nearest(part, names)}", where=f"--set {key}")
            table = named[0]
        else:
            table = table.setdefault(part, {})
        if not isinstance(table, dict | list):
            raise H2TuneError(
                f"'{'.'.join(path[: i + 1])}' is a value, not a table",
                where=f"--set {key}",
                remedy="Set it as a whole",
            )
    if isinstance(table, list):
        raise H2TuneError(
            "the name of the client is missing",
            where=f"--set {key}",
            remedy="For example --set client.films.rank=4",
        )
    table[last] = value


def absolute(path: str, folder: Path) -> str:
    """Return a path that starts from a folder; an absolute one stays as it is."""
    return str(folder / Path(path).expanduser())


def is_text_file(source: str) -> bool:
    """Return whether an entry of `basis.texts` is the path of a file, and not the name of a task."""
    return "/" in source or source.endswith((".txt", ".text"))


def absolute_texts(texts: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return public texts with the paths of files made absolute; names of tasks stay as they are."""
    return tuple(absolute(text, folder) if is_text_file(text) else text for text in texts)


def _absolute(federation: FederationConfig, folder: Path) -> FederationConfig:
    """Make the paths in a file independent of where the program is started."""
    clients = []
    for client in federation.client:
        changes: dict[str, Any] = {}
        if client.model.startswith((".", "/", "~")) or (folder / client.model).is_dir():
            changes["model"] = absolute(client.model, folder)
        if isinstance(client.task, OwnTask):
            changes["task"] = client.task.placed(folder)
        clients.append(client.model_copy(update=changes))
    encoder = federation.basis.encoder
    if encoder.startswith((".", "/", "~")):
        encoder = absolute(encoder, folder)
    texts = absolute_texts(federation.basis.texts, folder)
    basis = federation.basis.model_copy(update={"texts": texts, "encoder": encoder})
    server = federation.server
    own = {
        key: absolute_reference(value, folder)
        for key, value in (("strategy", server.strategy), ("aggregation", server.aggregation))
        if is_reference(value)
    }
    monitors = tuple(absolute_reference(m, folder) if is_reference(m) else m for m in federation.monitors)
    changed = {
        "client": tuple(clients),
        "basis": basis,
        "server": server.model_copy(update=own),
        "monitors": monitors,
    }
    return federation.model_copy(update=changed)
