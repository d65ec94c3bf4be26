"""Prompts: templates with fields of a row, filled by plain substitution."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError, nearest


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


def fill(template: str, row: Mapping[str, str]) -> str:
    """Return the template with each `{name}` replaced by `row[name]`; braces in a value stay as they are.

    Raises:
        H2TuneError: The template is malformed or the row lacks a field.
    """
    text = []
    for literal, name in parse(template):
        text.append(literal)
        if name is None:
            continue
        if name not in row:
            raise H2TuneError(
                f"the row has no field '{name}'{nearest(name, list(row))}",
                remedy=f"Its fields: {', '.join(row)}",
            )
        text.append(row[name])
    return "".join(text)


def framed(template: str, text: str) -> tuple[str, str]:
    """Return a bare text in a template of one field, and the template; the text as it is, and "{text}", for others.

    For texts that are no rows of the template's task, such as public texts.
    """
    names = fields(template)
    return (fill(template, {names[0]: text}), template) if len(names) == 1 else (text, "{text}")


def shorten(prompt: str, template: str, tokenizer: Any, max_length: int) -> str:
    """Return the prompt, truncated at the end of its longest field until it has at most `max_length` tokens.

    The text of the template is kept: a decoder answers after its last words, such as "\\nSentiment:".

    Args:
        prompt: A filled template.
        template: The template.
        tokenizer: A fast tokenizer of Transformers.
        max_length: Number of tokens, including special tokens.
    """
    spans = _spans(prompt, template)
    while True:
        offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
        surplus = len(offsets) - max_length
        start, end = max(spans, key=lambda span: span[1] - span[0], default=(0, 0))
        if surplus <= 0 or start == end:
            return prompt
        # Tokens at the cut may merge differently afterwards, hence the loop.
        inside = [left for left, right in offsets if start <= left < right <= end and left < end]
        cut = inside[-surplus] if surplus < len(inside) else start
        prompt = prompt[:cut] + prompt[end:]
        spans = [
            (left, cut) if (left, right) == (start, end) else _moved(left, right, end, end - cut)
            for left, right in spans
        ]


def _moved(left: int, right: int, after: int, by: int) -> tuple[int, int]:
    return (left - by, right - by) if left >= after else (left, right)


def _spans(prompt: str, template: str) -> list[tuple[int, int]]:
    """Return the positions (start, end) of the values of a template's fields in a prompt."""
    parts = parse(template)
    ending = parts[-1][0] if parts and parts[-1][1] is None else ""
    literals = [literal for literal, name in parts if name is not None]
    spans, position = [], len(literals[0]) if literals else 0
    for following in literals[1:]:
        end = prompt.find(following, position)
        if end < 0:
            break
        spans.append((position, end))
        position = end + len(following)
    last = len(prompt) - len(ending) if prompt.endswith(ending) else len(prompt)
    spans.append((position, max(position, last)))
    return spans
