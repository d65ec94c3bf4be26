"""Prompts: templates over the fields of a row, filled by plain substitution."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError, nearest


def parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the template as pairs (literal text, name of the field after it or None).

    Only `{name}` is a field; `{{` and `}}` are braces. Attributes, indices, conversions and format
    specifications are refused: a template may come from someone else.

    Raises:
        H2TuneError: The template is malformed.
    """
    remedy = "Write fields as {name}, and braces that are text as {{ and }}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise H2TuneError(f"malformed template {template!r} ({error})", remedy=remedy) from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not name.replace("-", "_").isidentifier()):
            raise H2TuneError(f"'{{{name}}}' in template {template!r} is not a plain field", remedy=remedy)
    return tuple((literal, name) for literal, name, _, _ in parts)


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


def shorten(prompt: str, template: str, tokenizer: Any, max_length: int) -> str:
    """Return the prompt, its end before the template's last words cut so that it fits `max_length` tokens.

    What follows the last field of the template (such as "\\nSentiment:") stays: a decoder answers after it.

    Args:
        prompt: A filled template.
        template: The template it was made from.
        tokenizer: A fast tokenizer of Transformers.
        max_length: Tokens, special tokens counted.
    """
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= max_length:
        return prompt
    literal, name = parse(template)[-1]
    ending = literal if name is None else ""
    body = prompt[: len(prompt) - len(ending)] if ending else prompt
    surplus = len(offsets) - max_length
    # Tokens at the seam may merge differently after the cut: go on until it fits.
    ends = [end for start, end in offsets if start < end <= len(body)]
    while surplus < len(ends):
        shortened = body[: ends[len(ends) - 1 - surplus]] + ending
        excess = len(tokenizer(shortened)["input_ids"]) - max_length
        if excess <= 0:
            return shortened
        surplus += excess
    return ending
