"""Checks on a client's examples before it trains: what is left of texts that are cut, and their labels."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from h2tune.errors import H2TuneError, within
from h2tune.federation.checks import warning
from h2tune.federation.local_client import LocalClient

HALF = 0.5
"""Share of a text that must be left, so that it does not count as cut short."""
FEW = 0.1
"""Share of texts cut short that needs no warning."""


def check_texts(client: LocalClient, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Tokenise a client's examples, and return a warning event where many are cut short, or all to train on
    have one label.

    Raises:
        H2TuneError: Nothing is left of a text, or two labels have the same tokens.
    """
    with within(f"client '{client.name}'"):
        rows = [*client.encoded("train", tokenizer), *client.encoded("scored", tokenizer)]
        unknown = [t for row in rows for t in (*row.prompt, *row.answer) if t >= (client.vocabulary or t + 1)]
        if unknown:
            word = tokenizer.convert_ids_to_tokens(unknown[0])
            raise H2TuneError(
                f"its tokenizer gives token {unknown[0]} ({word!r}), and the model knows {client.vocabulary} tokens",
                where=f"model {client.enrolment.model}",
                remedy="Give the model the tokenizer that belongs to it, or resize its embeddings",
            )
        length = f"max_length = {client.task.max_length}"
        if nothing := sum(row.kept <= 0 or not row.prompt for row in rows):
            raise H2TuneError(
                f"nothing is left of {nothing} of {len(rows)} texts: template or special tokens need all of {length}",
                where=f"task '{client.task.name}'",
                remedy="Raise max_length, or shorten the prompt's template",
            )
    found = []
    labels = {example.label for example in client.splits.train}
    if len(labels) == 1 and len(client.task.labels) > 1:
        (label,) = labels
        name = client.task.labels[label or 0]
        message = f"all {len(client.splits.train)} examples to train on have the label '{name}'"
        found.append(warning(client.name, 0, "one_label", message))
    short = sum(row.kept < HALF for row in rows)
    if not client.task.excerpt and short > FEW * len(rows):
        message = f"{short} of {len(rows)} texts lose more than half of their length at {length}"
        found.append(warning(client.name, 0, "texts_cut", message))
    return found
