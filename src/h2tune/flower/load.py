"""Reads and validates a coordinator's file, a member's file, and the settings in a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from h2tune.config import (
    ClientConfig,
    SharedConfig,
    absolute,
    absolute_texts,
    parse,
    problem,
    read_toml,
    resolve,
)
from h2tune.errors import within
from h2tune.flower.files import CoordinatorFile, MemberFile, Settings

Content = TypeVar("Content", bound=BaseModel)


def load_coordinator(path: Path) -> CoordinatorFile:
    """Read a coordinator's file; its run folder, key and text files are made absolute.

    Raises:
        H2TuneError: The file is invalid; names file and key.
    """
    file = _load(path, CoordinatorFile)
    texts = absolute_texts(file.basis.texts, path.resolve().parent)
    basis = file.basis.model_copy(update={"texts": texts})
    changes: dict[str, Any] = {"folder": _absolute(file.folder, path), "basis": basis}
    if file.key is not None:
        changes["key"] = _absolute(file.key, path)
    return file.model_copy(update=changes)


def load_member_file(path: Path) -> MemberFile:
    """Read a member's file; its folder, keys and certificates are made absolute.

    Raises:
        H2TuneError: The file is invalid; names file and key.
    """
    file = _load(path, MemberFile)
    changes = {"folder": _absolute(file.folder, path)}
    for key in ("key", "peers", "root_certificates"):
        value = getattr(file, key)
        if value is not None:
            changes[key] = _absolute(value, path)
    return file.model_copy(update=changes)


def member_client(file: MemberFile, path: Path) -> ClientConfig:
    """Return a member's client table, with paths relative to its file's folder made absolute."""
    raw = {"name": file.federation, "client": [json.loads(file.client.model_dump_json(exclude_none=True))]}
    return parse(raw, str(path), path.resolve().parent).client[0]


def read_settings(text: str) -> Settings:
    """Parse and validate settings from the wire.

    Raises:
        H2TuneError: They are invalid; names the key and no value.
    """
    where = "the coordinator's settings"
    try:
        settings = Settings.model_validate_json(text)
    except ValidationError as error:
        raise problem(error, Settings, None, where, values=False) from None
    return _resolved(settings, where)


def validated(model: type[Content], raw: object, where: str) -> Content:
    """Return validated content; derived settings of a federation are filled in.

    Raises:
        H2TuneError: It is invalid; names the key and no value.
    """
    try:
        content = model.model_validate(raw)
    except ValidationError as error:
        raise problem(error, model, raw, where, values=False) from None
    return _resolved(content, where)


def _absolute(value: str, file: Path) -> str:
    return absolute(value, file.resolve().parent)


def _load(path: Path, model: type[Content]) -> Content:
    return validated(model, read_toml(path, "Make one with h2tune deploy init"), str(path))


def _resolved(content: Content, where: str) -> Content:
    if not isinstance(content, SharedConfig):
        return content
    with within(where):
        return resolve(content)
