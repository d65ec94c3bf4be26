"""The reference of a file's keys, made from its models: section, key, type, default and one sentence."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from h2tune.config.problems import models_in
from h2tune.config.sections import FederationConfig
from h2tune.own_code import Reference
from h2tune.tasks.chat import ChatTask

WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "table"}
TABLE = re.compile(r"(<!-- keys of \[([\w.]*)\] -->\n).*?(<!-- end of keys -->)", re.DOTALL)
"""Where a page has the table of a section; the section's name is in the first comment."""


class Row(NamedTuple):
    """A key of a file.

    Args:
        section: Dotted name of its table; "" for the top level.
        key: The key.
        type: What its value may be, in words.
        default: Its default as TOML; "required" if there is none, "" for no value.
        sentence: What it means.
    """

    section: str
    key: str
    type: str
    default: str
    sentence: str


def rows(model: type[BaseModel] = FederationConfig, section: str = "") -> Iterator[Row]:
    """Yield every key of a file, section by section; a table of another model is a section and no key."""
    nested = []
    for key, field in model.model_fields.items():
        inside = list(models_in(field.annotation))
        if not inside or field.description:
            yield Row(section, key, _type(field.annotation), _default(field), field.description or "")
        name = f"{section}.{key}" if section else key
        nested += [(m, f"{name}.chat" if m is ChatTask else name) for m in inside]
    for inner, name in nested:
        yield from rows(inner, name)


def table(section: str, model: type[BaseModel] = FederationConfig) -> str:
    """Return the keys of a section as a Markdown table."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for row in rows(model):
        if row.section == section:
            default = f"`{row.default}`" if row.default not in ("", "required") else row.default or "–"
            lines.append(f"| `{row.key}` | {row.type} | {default} | {row.sentence} |")
    return "\n".join(lines) + "\n"


def filled(page: str) -> str:
    """Return a Markdown page whose tables of keys are those of the models."""
    return TABLE.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", page)


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Reference:
        return '`"module:object"`'
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is Literal:
        return ", ".join(f"`{json.dumps(a)}`" for a in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return WORDS[origin or annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, float):
        return re.sub(r"e-0", "e-", repr(value))
    return json.dumps(value)
