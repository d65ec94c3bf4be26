"""The adapters that a run leaves for each client, with their model cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from h2tune import files
from h2tune.adapter.export import save_adapter
from h2tune.federation.attach import attach_adapter
from h2tune.federation.local_client import LocalClient
from h2tune.federation.local_engine import LocalEngine
from h2tune.models import DEMO
from h2tune.report.view.traffic import Traffic
from h2tune.runs.card import model_card


def export_adapters(
    engine: LocalEngine, client: LocalClient, rounds: int, folder: Path, traffic: Mapping[str, Traffic]
) -> None:
    """Write a client's adapter in PEFT's format and as plain LoRA.

    Args:
        engine: The engine that holds the client's state.
        client: The client.
        rounds: Number of rounds of the run.
        folder: Where the folders `adapter` and `lora` are written.
        traffic: What each client sent and received, for the model cards.
    """
    last = engine.last_round(client.name, rounds)
    if last is None:
        return  # the client never finished a round; the events hold its failures
    state, events = last[0]["private"], last[1]["events"]
    sent = traffic.get(client.name, Traffic())
    base, tokenizer = engine.base_of(client)
    adapted = attach_adapter(base, client, engine.strategy, state, engine.frames(client.name))
    if client.enrolment.model.startswith(DEMO):  # its folder is this machine's cache
        adapted.model.peft_config["default"].base_model_name_or_path = client.enrolment.model
    try:
        save_adapter(adapted.model, folder / "adapter")
        adapted.save_lora(folder / "lora")
        for name in ("adapter", "lora"):
            tokenizer.save_pretrained(folder / name)
            rank = int(json.loads((folder / name / "adapter_config.json").read_bytes())["r"])
            files.write_text(
                folder / name / "README.md", model_card(client, rank, events, sent, plain=name == "lora")
            )
        files.share(folder / "lora", folder / "adapter")  # the tokenizer
    finally:
        adapted.detach()
