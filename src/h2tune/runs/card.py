"""The model card beside an exported adapter: what it is, how well it scores, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h2tune._version import __version__
from h2tune.federation.local_client import LocalClient
from h2tune.report.intervals import wilson
from h2tune.report.view.traffic import Traffic

LOADED = {
    "causal": "AutoPeftModelForCausalLM.from_pretrained(folder)",
    "classifier": "AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels={labels})",
}


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
    if not client.enrolment.model.startswith(("/", ".", "~", "pypi:")):
        head.append(f"base_model: {client.enrolment.model}")
    parts = [
        "\n".join([*head, "---"]),
        f"# {client.name}",
        f"Trained in a federation by h2tune {__version__} ([H2Tune](https://arxiv.org/abs/2507.22633)).",
        _facts(client, rank, plain),
        _scores(events),
        "## Use",
        _use(client, plain),
        "## Privacy",
        _sent(sent),
        "The adapter was trained on the client's own examples, and may repeat or reveal them. The run's `events.jsonl` "
        "lists what the client sent in the federation.",
        "## Licence",
        "The base model's licence applies to a merged model.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(client: LocalClient, rank: int, plain: bool) -> str:
    task = client.task
    rows = {
        "base model": f"`{client.enrolment.model}`",
        "rank": f"{rank}; in vLLM `--max-lora-rank {_power_of_two(rank)}`" if plain else str(rank),
        "task": task.name,
        "labels": ", ".join(f"`{label}`" for label in task.labels) or "free text",
        "training examples": str(len(client.splits.train)),
    }
    table = ["| fact | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(table)


def _scores(events: Sequence[Mapping[str, Any]]) -> str:
    """Return the score after the last round, with its interval, if the client was scored then."""
    scored = [event for event in events if event.get("event") == "evaluated"]
    if not scored:
        return ""
    event = scored[-1]
    accuracy, count = event["accuracy"], event["examples"]
    low, high = wilson(accuracy, count)
    return "\n".join(
        [
            "| split | examples | accuracy | 95 % interval (Wilson) |",
            "|---|---|---|---|",
            f"| {event['split']} | {count} | {accuracy:.3f} | {low:.3f} to {high:.3f} |",
        ]
    )


def _sent(traffic: Traffic) -> str:
    up, once = traffic.total[0], traffic.before[0]
    before = f", {once:,} of them before the first round" if once else ""
    return f"In the federation the client sent {up:,} bytes{before}."


def _use(client: LocalClient, plain: bool) -> str:
    labels = len(client.task.labels)
    lines = [] if plain else ["import h2tune.adapter  # registers the adapter with PEFT"]
    name = LOADED[client.kind].split(".")[0]
    lines += [f"from peft import {name}", "", f"model = {LOADED[client.kind].format(labels=labels)}"]
    if client.kind == "classifier":
        names = dict(enumerate(client.task.labels))
        lines.append(f"model.config.id2label = {names!r}")
    return "\n".join(["```python", *lines, "```"])


def _power_of_two(rank: int) -> int:
    """Return the least rank of vLLM's choices that holds the adapter."""
    return max(8, 1 << (rank - 1).bit_length())
