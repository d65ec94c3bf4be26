"""Evaluate and export the adapters of a finished run, each on its client's model as the run built it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import PreTrainedTokenizerBase

import h2tune.adapter  # noqa: F401 - registers the adapter with PEFT
from h2tune import files
from h2tune.adapter.heads import keep_in_float32
from h2tune.adapter.state import take_off
from h2tune.config import ClientConfig, FederationConfig
from h2tune.errors import H2TuneError
from h2tune.evaluation.evaluate import evaluate
from h2tune.evaluation.result import Score
from h2tune.federation.attach import prepare_base
from h2tune.federation.local_client import LocalClient
from h2tune.federation.local_engine import BaseModels
from h2tune.federation.messages import Enrolment
from h2tune.models import read_config
from h2tune.runs.enrol import load_client, without_data
from h2tune.runs.folder import (
    adapter_folder,
    check_export,
    check_split,
    client_of,
    read_run,
    trained_clients,
)
from h2tune.runs.model_info import ClientInfo, client_info, enrolment
from h2tune.tasks.own_task import OwnTask


@dataclass(frozen=True)
class RestoredClient:
    """A client of a finished run.

    Args:
        client: The client with its data.
        model: Its model with the trained adapter, a `peft.PeftModel`.
        tokenizer: Its tokenizer.
        heads: The base model's own heads by name, which the client's heads replace.
    """

    client: LocalClient
    model: Any
    tokenizer: PreTrainedTokenizerBase
    heads: dict[str, nn.Module]


def evaluate_run(folder: Path, clients: Sequence[str], split: str) -> Iterator[tuple[str, Score]]:
    """Load the saved adapters with PEFT, score them, and yield each client's name and score.

    Args:
        folder: The run folder.
        clients: Names of clients; all of them if empty.
        split: "test" or "validation".

    Raises:
        H2TuneError: No such run, client or split, or a client has no examples in that split.
    """
    check_split(split)
    federation, chosen = read_run(folder), trained_clients(folder, clients)
    models = BaseModels(federation.seed, federation.trusted)
    for config in chosen:
        source = adapter_folder(folder, config.name, "adapter")
        info = client_info(config)
        client = replace(load_client(info, _enrolled(federation, info, source), federation), split=split)
        if not client.scored:
            raise H2TuneError(
                f"client '{config.name}' has no {split} examples",
                where="--split",
                remedy="Use --split test, or run with data.validation above 0",
            )
        restored = _restore(models, client, config, source)
        yield config.name, _score(restored)
        take_off(restored.model, restored.heads)


def restored_client(folder: Path, client: str) -> RestoredClient:
    """Return a client of a finished run with its trained adapter, without examples.

    Raises:
        H2TuneError: No such run or client.
    """
    federation = read_run(folder)
    config = client_of(federation, client, folder)
    source, info = adapter_folder(folder, config.name, "adapter"), client_info(config)
    local = without_data(info, _enrolled(federation, info, source), federation)
    if isinstance(config.task, OwnTask) and local.task.kind == "generate":
        with contextlib.suppress(H2TuneError):  # without the data, answers may have as many tokens as any
            tokens = config.task.answer_tokens(e.answer for e in config.task.read().train)
            local = replace(local, task=replace(local.task, new_tokens=tokens))
    return _restore(BaseModels(federation.seed, federation.trusted), local, config, source)


def export_client(folder: Path, client: str, out: Path, form: str = "lora") -> Path:
    """Write a client's adapter to `out`.

    Args:
        folder: The run folder.
        client: The client's name.
        out: A folder that does not exist yet.
        form: `"lora"`, `"adapter"`, or `"merged"` (the whole model with the update in its weights).

    Raises:
        H2TuneError: No such run, client or format; `out` exists; or a merge into quantised weights.
    """
    check_export(out, form)
    federation = read_run(folder)
    config = client_of(federation, client, folder)
    if form == "merged":
        _merge(federation, config, folder, out)
    else:
        source = adapter_folder(folder, client, form)
        with files.new_folder(out) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    return out


def _merge(federation: FederationConfig, config: ClientConfig, folder: Path, out: Path) -> None:
    if _is_quantised(config):
        raise H2TuneError(
            f"the base model of client '{config.name}' is quantised, and merging would round its update away",
            where="--format merged",
            remedy="Export with --format lora, and load it beside the quantised model",
        )
    source = adapter_folder(folder, config.name, "lora")
    info = client_info(config)
    client = without_data(info, _enrolled(federation, info, source), federation)
    restored = _restore(BaseModels(federation.seed, federation.trusted), client, config, source)
    merged = restored.model.merge_and_unload()
    merged.config.use_cache = True
    with files.new_folder(out) as temporary:
        merged.save_pretrained(temporary)
        restored.tokenizer.save_pretrained(temporary)


def _is_quantised(config: ClientConfig) -> bool:
    base = read_config(config.model, code=config.trust_remote_code)
    return config.dtype == "nf4" or getattr(base, "quantization_config", None) is not None


def _enrolled(federation: FederationConfig, info: ClientInfo, source: Path) -> Enrolment:
    """Return a client's enrolment; its rank is that of its saved adapter."""
    rank = PeftConfig.from_pretrained(source).r
    return enrolment(info, rank, info.client.examples(federation.data) or 0)


def _restore(models: BaseModels, client: LocalClient, config: ClientConfig, source: Path) -> RestoredClient:
    """Put a saved adapter on the client's base model, prepared as for a round of the run."""
    base, tokenizer = models.get(config.model, client.kind, config.dtype)
    heads = {name: base.get_submodule(name) for name in prepare_base(base, client)}
    settings = PeftConfig.from_pretrained(source)
    settings.base_model_name_or_path = None  # PEFT would warn that a demo model's name became its folder
    model = get_peft_model(base, settings)
    # before the weights are loaded: PEFT would round a head to the base model's type
    keep_in_float32(model, list(heads))
    model.load_adapter(source, "default")
    return RestoredClient(client, model.eval(), tokenizer, heads)


def _score(restored: RestoredClient) -> Score:
    client = restored.client
    return evaluate(
        restored.model,
        client.task,
        client.scored,
        restored.tokenizer,
        causal=client.causal,
        batch_size=client.evaluate_batch_size,
        encoded=client.encoded("scored", restored.tokenizer),
    )
