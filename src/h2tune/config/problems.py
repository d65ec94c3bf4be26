"""What is wrong with the content of a file, in one line: the words for pydantic's errors."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from h2tune.errors import H2TuneError

WORDS = {
    "string_pattern_mismatch": "must be 1 to 64 letters a to z, digits, '_', '.' or '-', "
    "and begin with a letter or digit",
    "string_type": "must be a text",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "too_short": "must have at least one entry",
}
"""Pydantic's type of an error → what to say; other errors keep pydantic's words."""
OWN_SECTION = 0.15
"""How much a known key of the same section is preferred to an equally similar one of another section."""
CLOSE = 0.65
"""Least similarity of a key that is suggested."""


def problem(
    error: ValidationError, model: type[BaseModel], raw: object, where: str, *, values: bool = True
) -> H2TuneError:
    """Return the first problem of a file as an error: what is wrong, under which key, and what to do.

    Args:
        error: What pydantic found.
        model: The model of the whole file.
        raw: The content of the file; None if it is not at hand.
        where: The file.
        values: Whether the message may repeat values of the file.
    """
    problems = error.errors(include_url=False, include_context=False)
    # A misspelt key is also a missing one; its error says more.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = " ".join(key_of(first["loc"], raw).split())  # a key may have a line break
    if first["type"] == "extra_forbidden":
        return H2TuneError(f"unknown key '{key}'{suggestion(generic(first['loc']), model)}", where=where)
    if first["type"] == "missing":
        sentence = described(model).get(generic(first["loc"]), "")
        start = sentence[:1].lower() if sentence[1:2].islower() or sentence[1:2] == " " else sentence[:1]
        remedy = f"Set it: {start}{sentence[1:].rstrip('.')}" if sentence else ""
        return H2TuneError(f"'{key}' is missing", where=where, remedy=remedy)
    # One value, several allowed types: each is a problem of its own, and they belong together.
    texts = list(dict.fromkeys(_words(p) for p in problems if " ".join(key_of(p["loc"], raw).split()) == key))
    text = " or ".join([texts[0], *(t.removeprefix("must be ") for t in texts[1:])])
    given = first["input"]
    repeated = values and text.startswith("must") and isinstance(given, str | int | float | bool)
    shown = f", not {given!r}" if repeated else ""  # a sentence of our own names the value itself
    return H2TuneError(f"{key + ': ' if key else ''}{text}{shown}", where=where)


def key_of(location: Sequence[int | str], raw: object) -> str:
    """Return the dotted key of a place in a file; entries of a list go by their names."""
    if raw is None:  # the content is not at hand
        return ".".join(str(part) for part in location if str(part)[:1] != "<")
    words: list[str] = []
    for i, part in enumerate(location):
        if isinstance(part, int) and isinstance(raw, list | tuple) and part < len(raw):
            raw = raw[part]
            words.append(str(raw.get("name", part) if isinstance(raw, Mapping) else part))
        elif isinstance(raw, Mapping) and (part in raw or i == len(location) - 1) and str(part)[:1] != "<":
            words.append(str(part))
            raw = raw.get(part)
        # else: pydantic's own words, such as the branch of a union
    return ".".join(words)


def generic(location: Sequence[int | str]) -> str:
    """Return the dotted key of a place in a file without positions in lists and branches of unions."""
    return ".".join(part for part in location if isinstance(part, str) and part[:1] != "<")


def described(model: type[BaseModel]) -> dict[str, str]:
    """Return every dotted key of a file and its sentence; sections are among the keys."""
    return dict(_described(model, ""))


def _described(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field.description or ""
        for section in models_in(field.annotation):
            yield from _described(section, f"{prefix}{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type, such as the one in `tuple[ClientConfig, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def suggestion(key: str, model: type[BaseModel]) -> str:
    """Return `" (did you mean 'x'?)"` for the known key nearest to an unknown one, or an empty string.

    Keys of other sections are looked at as well: who writes `adapter.mask` is led to `experimental.mask`.
    """
    section, _, word = key.rpartition(".")
    with_section = f"{section.rpartition('.')[2]}_{word}"  # basis.scale → experimental.basis_scale

    def similarity(known: str) -> float:
        known_section, _, known_word = known.rpartition(".")
        if with_section == known_word:
            return 2.0
        return _ratio(word, known_word) + OWN_SECTION * (known_section == section)

    nearest = max(described(model), key=similarity)
    if similarity(nearest) < CLOSE:
        return ""
    own, _, nearest_word = nearest.rpartition(".")
    return f" (did you mean '{nearest_word if own == section else nearest}'?)"


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _words(problem: Mapping[str, Any]) -> str:
    if problem["type"] in WORDS:
        return WORDS[problem["type"]]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return f"must be {message.removeprefix('Input should be ')}"
    return message[:1].lower() + message[1:] if message[:2].istitle() else message
