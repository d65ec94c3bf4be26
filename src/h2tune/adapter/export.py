"""Exact export of an h2tune adapter as a plain LoRA adapter: lora_B ← (α / r) · B (I + T)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from h2tune import files
from h2tune.adapter.layer import H2TuneLayer


@torch.no_grad()
def to_lora(model: PeftModel, adapter_name: str = "default") -> tuple[LoraConfig, dict[str, Tensor]]:
    """Return the LoRA adapter that computes the same as an h2tune adapter.

    Args:
        model: A PEFT model with an h2tune adapter.
        adapter_name: The adapter.

    Returns:
        Its configuration and its tensors, named as PEFT saves them; heads are included unchanged.
    """
    own: Any = model.peft_config[adapter_name]
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    tensors = {name: tensor for name, tensor in state.items() if ".h2tune_" not in name}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, H2TuneLayer)}
    layers = {name: layer for name, layer in layers.items() if adapter_name in layer.h2tune_down}
    # the frames come last, and do nothing where every T is zero
    between = any(bool(layer.middle(adapter_name).any()) for layer in layers.values())
    conv1d, rank = any(layer.fan_in_fan_out for layer in layers.values()), own.r
    for name, layer in layers.items():
        down, up = layer.as_lora(adapter_name)
        rank = down.shape[0] if between else own.r
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = down[:rank], up[:, :rank]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # lora_B contains the scale
        lora_dropout=own.dropout,
        target_modules=own.target_modules,
        exclude_modules=own.exclude_modules,
        modules_to_save=own.modules_to_save,
        fan_in_fan_out=conv1d,
        task_type=own.task_type or _task_type(model),
        base_model_name_or_path=own.base_model_name_or_path,
        inference_mode=True,
    )
    return config, {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def _task_type(model: PeftModel) -> str | None:
    """Return PEFT's name of what the base model does, which `AutoPeftModel` needs; None if it is neither."""
    name = type(model.get_base_model()).__name__
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "CAUSAL_LM"
    return "SEQ_CLS" if name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values() else None


def save_lora(model: PeftModel, folder: Path, adapter_name: str = "default") -> None:
    """Write the LoRA adapter of `to_lora` as a folder that `PeftModel.from_pretrained` loads without h2tune."""
    config, tensors = to_lora(model, adapter_name)
    with files.new_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write an adapter in PEFT's own format, as an atomic folder."""
    with files.new_folder(folder) as temporary, warnings.catch_warnings():
        # peft 0.21 mistakes the bias of lora_B for a matrix that was not gathered
        warnings.filterwarnings("ignore", r".*LoRA tensor\(s\) have invalid shape")
        with _without_card(model):
            model.save_pretrained(str(temporary), save_embedding_layers=False)


@contextlib.contextmanager
def _without_card(model: PeftModel) -> Iterator[None]:
    """Let PEFT write no model card while the block runs: it would be an empty one, and is a third of the time."""
    vars(model)["create_or_update_model_card"] = lambda output_dir: None
    try:
        yield
    finally:
        del vars(model)["create_or_update_model_card"]
