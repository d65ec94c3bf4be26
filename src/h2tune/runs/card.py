"""The model card beside an exported adapter: what it is, how well it scores, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune._version import __version__
from h2tune.federation.local_client import LocalClient
from h2tune.models import DEMO, is_local, licence
from h2tune.own_code import is_reference
from h2tune.report.intervals import wilson
from h2tune.report.view.traffic import Traffic
from h2tune.tasks.sources import title

CLASSES = {"causal": "ForCausalLM", "classifier": "ForSequenceClassification"}
METRICS = {
    "rouge": "ROUGE-L",
    "f1": "F1 of words",
    "exact": "exact match",
    "likelihood": "1 / perplexity",
}
"""Scorer → what its score is; the others count right answers."""
PRIVACY = (
    "The adapter was trained on the client's own examples, and may repeat or reveal them. Noise and secure aggregation "
    "protect what the client sent in the federation, and not this adapter. The run's `events.jsonl` lists every tensor "
    "that was sent."
)


def model_card(
    client: LocalClient, rank: int, events: Sequence[Mapping[str, Any]], sent: Traffic, *, plain: bool
) -> str:
    """Return a client's model card: Markdown with the head that model hubs read.

    Args:
        client: The client.
        rank: Rank in its configuration; that of plain LoRA is the client's and the shared one together.
        events: Events of the client's last round.
        sent: What the client sent in the run.
        plain: Whether it is plain LoRA; else it is an adapter of h2tune.
    """
    head = ["---", "library_name: peft", "tags:", "- h2tune", *(["- lora"] if plain else [])]
    model = client.enrolment.model
    if not is_local(model) and not model.startswith(DEMO):
        head.append(f"base_model: {model}")
    parts = [
        "\n".join([*head, "---"]),
        f"# {client.name}",
        f"Trained in a federation by h2tune {__version__} ([H2Tune](https://arxiv.org/abs/2507.22633)).",
        _facts(client, rank, plain),
        _scores(client, events),
        "## Use",
        _use(client, plain),
        "## Privacy",
        _sent(sent),
        PRIVACY,
        "## Licence",
        f"Base model: {licence(model)}. It applies to a merged model, too. Data: {client.task.license}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(*rows: Sequence[str]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _facts(client: LocalClient, rank: int, plain: bool) -> str:
    task, model = client.task, client.enrolment.model
    return _table(
        ("fact", "value"),
        ("base model", f"`{Path(model).name}`, a local folder" if is_local(model) else f"`{model}`"),
        ("rank", _rank(client, rank, plain)),
        ("task", task.name),
        ("labels", ", ".join(f"`{label}`" for label in task.labels) or "free text"),
        ("data", task.source),
        ("training examples", str(len(client.splits.train))),
    )


def _rank(client: LocalClient, rank: int, plain: bool) -> str:
    """Return the rank and its parts, and what vLLM must allow: by default it loads adapters up to rank 16."""
    own = client.enrolment.rank
    parts = f", {own} of the client and {rank - own} common" if plain and rank > own else ""
    return f"{rank}{parts}; in vLLM `--max-lora-rank {_power_of_two(rank)}`" if plain else str(rank)


def _scores(client: LocalClient, events: Sequence[Mapping[str, Any]]) -> str:
    """Return the score after the last round, with its interval, if the client was scored then."""
    scored = [event for event in events if event.get("event") == "evaluated"]
    if not scored:
        return ""
    event, free = scored[-1], client.task.kind == "generate"
    score, count, loss = event["accuracy"], event["examples"], event["loss"]
    low, high = wilson(score, count)
    scorer = client.task.scorer
    metric = METRICS.get(scorer, f"score of `{title(scorer)}`" if is_reference(scorer) else "accuracy")
    row = [event["split"], str(count), f"{score:.3f}", f"{low:.3f} to {high:.3f}", f"{loss:.3f}"]
    head = ["split", "examples", metric, "95 % interval", "loss"]
    if free:
        head.append("perplexity")
        row.append(f"{math.exp(min(loss, 700)):.4g}")
    note = (
        "" if metric in ("accuracy", "exact match") else ", which is too wide for scores that are fractions"
    )
    return f"{_table(head, row)}\n\nThe interval is Wilson's{note}. It covers the choice of test examples, not seeds."


def _sent(traffic: Traffic) -> str:
    up, once = traffic.total[0], traffic.before[0]
    before = f", {once:,} of them before the first round" if once else ""
    return f"In the federation the client sent {up:,} bytes{before}."


def _use(client: LocalClient, plain: bool) -> str:
    """Return Python that loads the adapter from `folder`."""
    labels, model = client.task.labels, client.enrolment.model
    options = f", num_labels={len(labels)}" if client.kind == "classifier" else ""
    lines = [] if plain else ["import h2tune.adapter  # registers the adapter with PEFT"]
    if model.startswith(DEMO):
        name = f"AutoModel{CLASSES[client.kind]}"
        lines += [
            "from h2tune.assets import fetch  # returns the folder of a demo model",
            "from peft import PeftModel",
        ]
        lines += [f"from transformers import {name}", ""]
        lines.append(f"base = {name}.from_pretrained(fetch({model.removeprefix(DEMO)!r}){options})")
        lines.append("model = PeftModel.from_pretrained(base, folder)")
    else:
        name = f"AutoPeftModel{CLASSES[client.kind]}"
        lines += [f"from peft import {name}", "", f"model = {name}.from_pretrained(folder{options})"]
    if client.kind == "classifier":
        lines.append(f"model.config.id2label = {dict(enumerate(labels))!r}")
    return "\n".join(["```python", *lines, "```"])


def _power_of_two(rank: int) -> int:
    """Return the least rank of vLLM's choices that holds the adapter."""
    return max(8, 1 << (rank - 1).bit_length())
