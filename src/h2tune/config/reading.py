"""Reading a federation file: one clear line for what it may not say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from h2tune.config.adapter import AdapterConfig
from h2tune.config.privacy import PrivacyConfig
from h2tune.config.sections import (
    BasisConfig,
    ClientConfig,
    DataConfig,
    FederationConfig,
    TrainConfig,
)
from h2tune.config.server import ServerConfig
from h2tune.errors import H2TuneError, nearest
from h2tune.tasks.rows import FileTask


def load(path: Path, overrides: Sequence[str] = ()) -> FederationConfig:
    """Read a federation file.

    Args:
        path: A TOML file.
        overrides: Changes such as `"train.learning_rate=1e-4"` or `"client.films.rank=4"`; the value is TOML, and what
            is no TOML is taken for a string.

    Raises:
        H2TuneError: The file is not there, is no TOML, or says something it may not; one line with the key.
    """
    raw = _read(path)
    for override in overrides:
        _apply(raw, override)
    return parse(raw, str(path), path.parent)


def load_resolved(path: Path) -> FederationConfig:
    """Read the file that a run keeps in its folder, where every path is absolute already.

    Raises:
        H2TuneError: As `load` does.
    """
    return parse(_read(path), str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise H2TuneError(
            "no such file", where=str(path), remedy="Give the path of a federation file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise H2TuneError(f"cannot be read ({error})", where=str(path)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise H2TuneError(f"no valid TOML: {error}", where=str(path), remedy="See https://toml.io") from None


def parse(raw: Mapping[str, Any], where: str, folder: Path | None = None) -> FederationConfig:
    """Validate the content of a federation file; relative paths in it start from `folder`."""
    try:
        federation = FederationConfig.model_validate(raw)
    except ValidationError as error:
        raise H2TuneError(_first_problem(error, raw), where=where) from None
    return federation if folder is None else _absolute(federation, folder.resolve())


def dump(federation: FederationConfig) -> dict[str, Any]:
    """Return the resolved file as plain values, without what is None: it reads back to the same federation."""
    plain: dict[str, Any] = json.loads(federation.model_dump_json(exclude_none=True))
    return plain


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise H2TuneError(f"'{override}' is no change", where="--set", remedy="Write --set section.key=value")
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
                names = [str(entry.get("name")) for entry in table]
                raise H2TuneError(f"no client '{part}'{nearest(part, names)}", where=f"--set {key}")
            table = named[0]
        else:
            table = table.setdefault(part, {})
        if not isinstance(table, dict | list):
            raise H2TuneError(f"'{'.'.join(path[: i + 1])}' is no table", where=f"--set {key}")
    if isinstance(table, list):
        raise H2TuneError("name the client first, as in client.films.rank=4", where=f"--set {key}")
    table[last] = value


def _first_problem(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """Say the first problem in words, with the key and the nearest known one."""
    problems = error.errors()
    # A value that fits neither side of "text or table" is reported once for each; the table's report says more.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = _key(problem["loc"], raw)
    if problem["type"] == "extra_forbidden":
        known = list(_known(problem["loc"]))
        return f"unknown key '{key}'{nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = f", not {problem['input']!r}" if isinstance(problem["input"], str | int | float | bool) else ""
    return f"{key + ': ' if key else ''}{message[:1].lower() + message[1:]}{given}"


def _key(location: Sequence[int | str], raw: Any) -> str:
    words: list[str] = []
    for i, part in enumerate(location):
        if isinstance(part, int) and isinstance(raw, list | tuple) and part < len(raw):
            raw = raw[part]
            words[-1:] = [f"{words[-1]}.{raw.get('name', part)}" if isinstance(raw, dict) else str(part)]
        elif isinstance(raw, Mapping) and isinstance(part, str) and (part in raw or i == len(location) - 1):
            raw = raw.get(part)
            words.append(part)
        # else: pydantic's own words, such as the branch of a union
    return ".".join(words)


def _known(location: Sequence[int | str]) -> Iterator[str]:
    model: type[BaseModel] = FederationConfig
    sections: dict[str, type[BaseModel]] = {
        "server": ServerConfig,
        "adapter": AdapterConfig,
        "basis": BasisConfig,
    }
    sections |= {"train": TrainConfig, "data": DataConfig, "privacy": PrivacyConfig, "client": ClientConfig}
    for part in location[:-1]:
        if part in sections:
            model = sections[str(part)]
        elif part == "task":
            model = FileTask
    yield from model.model_fields


def absolute(path: str, folder: Path) -> str:
    """Return a path that starts from a folder, or one that is absolute as it is."""
    return str(folder / Path(path).expanduser())


def absolute_texts(texts: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Return public texts with the paths of files made absolute; names of tasks stay as they are."""
    return tuple(absolute(t, folder) if "/" in t or t.endswith((".txt", ".text")) else t for t in texts)


def _absolute(federation: FederationConfig, folder: Path) -> FederationConfig:
    """Make the paths in a file independent of where the program is started."""
    clients = []
    for client in federation.client:
        changes: dict[str, Any] = {}
        if client.model.startswith((".", "/", "~")) or (folder / client.model).is_dir():
            changes["model"] = absolute(client.model, folder)
        if isinstance(client.task, FileTask):
            files = {key: getattr(client.task, key) for key in ("file", "validation_file", "test_file")}
            changes["task"] = client.task.model_copy(
                update={k: absolute(v, folder) for k, v in files.items() if v}
            )
        clients.append(client.model_copy(update=changes))
    basis = federation.basis.model_copy(update={"texts": absolute_texts(federation.basis.texts, folder)})
    return federation.model_copy(update={"client": tuple(clients), "basis": basis})
