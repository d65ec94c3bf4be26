"""Heads that are trained beside an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn


def keep_in_float32(model: PeftModel, heads: Sequence[str], adapter_name: str = "default") -> None:
    """Keep the trained copies of heads in float32, as PEFT keeps adapters, whatever the base model's type is.

    In bfloat16 a small optimiser step would be rounded away. A hook casts the inputs; the outputs are float32.

    Args:
        model: A PEFT model.
        heads: Names of the modules that are trained beside the adapter, as in the base model.
        adapter_name: The adapter in `model`.
    """
    for name in heads:
        head = model.get_base_model().get_submodule(name).modules_to_save[adapter_name]
        if any(p.dtype != torch.float32 for p in head.parameters()):
            head.float().register_forward_pre_hook(_cast)


def _cast(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
