"""Prompts: templates with fields of a row, filled by plain substitution."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from h2tune.errors import H2TuneError, nearest
from h2tune.tasks.task import Example, Spans, Task

SEAM = 20
"""Most characters by which a cut is moved to the next space, so that no word is cut in two."""


class Filled(NamedTuple):
    """A filled template.

    Args:
        text: The template with the values of its fields.
        fields: Where these values stand in it: (start, end) of each, in order.
    """

    text: str
    fields: Spans


def parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the template as pairs (literal text, name of the field after it or None).

    `{name}` is a field, and `{name.name}` one within an object; `{{` and `}}` are braces. Only keys are looked up:
    indices, conversions and format specifications are errors, as a template may come from an untrusted source.

    Raises:
        H2TuneError: The template is malformed.
    """
    remedy = "Write fields as {name}, and braces that are text as {{ and }}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise H2TuneError(f"malformed template {template!r} ({error})", remedy=remedy) from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not _is_field(name)):
            raise H2TuneError(f"'{{{name}}}' in template {template!r} is not a field", remedy=remedy)
    merged: list[tuple[str, str | None]] = []
    before = ""  # the standard parser starts a new part after every {{ and }}
    for literal, name, _, _ in parts:
        before += literal
        if name is not None:
            merged.append((before, name))
            before = ""
    return (*merged, (before, None)) if before else tuple(merged)


def _is_field(name: str) -> bool:
    parts = name.split(".")
    return all(part.replace("-", "_").isidentifier() and not part.startswith("__") for part in parts)


def fields(template: str) -> tuple[str, ...]:
    """Return the names of a template's fields, in order, each once."""
    return tuple(dict.fromkeys(name for _, name in parse(template) if name is not None))


def filled(template: str, row: Mapping[str, str]) -> Filled:
    """Return the template with each `{name}` replaced by `row[name]`; braces in a value stay as they are.

    Raises:
        H2TuneError: The template is malformed or the row lacks a field.
    """
    text, spans = "", []
    for literal, name in parse(template):
        text += literal
        if name is None:
            continue
        if name not in row:
            raise H2TuneError(
                f"the row has no field '{name}'{nearest(name, list(row))}",
                remedy=f"Its fields: {', '.join(row)}",
            )
        spans.append((len(text), len(text) + len(row[name])))
        text += row[name]
    return Filled(text, tuple(spans))


def fill(template: str, row: Mapping[str, str]) -> str:
    """Return the text of `filled`."""
    return filled(template, row).text


def joined(values: Sequence[str]) -> Filled:
    """Return values one a line, as an encoder reads the fields of a row."""
    names = [f"f{i}" for i in range(len(values))]
    return filled("\n".join(f"{{{name}}}" for name in names), dict(zip(names, values, strict=True)))


def labelled(task: Task, row: Mapping[str, str], label: int, text: str | Filled) -> Example:
    """Return the example of a row whose label is known.

    Args:
        task: The task.
        row: Values of the fields of its template.
        label: Index of the label.
        text: What an encoder reads.
    """
    prompt = filled(task.template, row)
    read = text if isinstance(text, Filled) else Filled(text, ())
    return Example(prompt.text, task.verbalisers[label], label, read.text, prompt.fields, read.fields)


def framed(template: str, text: str) -> Filled:
    """Return a bare text in a template of one field; in a template of several, the text as it is.

    For texts that are no rows of the template's task, such as public texts.
    """
    names = fields(template)
    return filled(template, {names[0]: text}) if len(names) == 1 else Filled(text, ((0, len(text)),))


def shorten(text: str, spans: Sequence[tuple[int, int]], count: Callable[[str], int], limit: int) -> str:
    """Return a filled template with so much left out of the middle of its longest fields that it fits.

    The template is kept, and the beginning and end of each field: an instruction stands at the beginning, a question
    often at the end. All fields keep at most the same number of characters.

    Args:
        text: A filled template.
        spans: Where the values of its fields stand.
        count: Returns the number of tokens of a text.
        limit: Most tokens; a template that has more by itself is returned without any of its fields.
    """
    if count(text) <= limit:
        return text
    longest = max((end - start for start, end in spans), default=0)
    return _cut(text, spans, most_that_fits(longest, lambda most: count(_cut(text, spans, most)) <= limit))


def most_that_fits(high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `high` that fits, by bisection; 0 if none does."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def capped(value: str, most: int) -> str:
    """Return at most `most` characters of a text, from its beginning and its end; no word is cut in two."""
    if len(value) <= most:
        return value
    left, right = value[: most - most // 2], value[len(value) - most // 2 :]
    before = left.rfind(" ", max(0, len(left) - SEAM))
    after = right.find(" ", 0, SEAM)
    return (left if before < 0 else left[:before]) + (right if after < 0 else right[after:])


def _cut(text: str, spans: Sequence[tuple[int, int]], most: int) -> str:
    """Return the text with at most `most` characters of each span."""
    parts, position = [], 0
    for start, end in spans:
        parts += [text[position:start], capped(text[start:end], most)]
        position = end
    return "".join((*parts, text[position:]))
