"""Scoring at the speed of the base model: the adapter's update is added to the weights for the duration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from h2tune.adapter.layer import H2TuneLayer


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Fold the active adapters of a model into its base weights; afterwards the original tensors are restored.

    PEFT's merge and unmerge would leave a rounding error in weights that other clients share. Only plain float32
    linear layers are folded (bfloat16 would round the update away), and only adapters that are a product of two
    matrices; other layers compute their adapter as usual. Needs a second copy of the folded weights in memory.
    """
    originals: list[tuple[BaseTunerLayer, nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, BaseTunerLayer) and (names := _foldable(layer)):
                    weight: nn.Parameter = layer.get_base_layer().weight
                    originals.append((layer, weight, weight.data))
                    for name in names:
                        weight.data = weight.data + layer.get_delta_weight(name)
                    layer.merged_adapters.extend(names)
        yield
    finally:
        for layer, weight, data in originals:
            weight.data = data
            layer.merged_adapters.clear()


def _foldable(layer: BaseTunerLayer) -> list[str]:
    """Return the active adapters of a layer if they can be folded, else an empty list."""
    base = layer.get_base_layer()
    if layer.merged or layer.disable_adapters or type(base) is not nn.Linear:
        return []
    if base.weight.dtype != torch.float32 or base is not layer.base_layer:
        return []
    if isinstance(layer, H2TuneLayer):
        return [name for name in layer.active_adapters if name in layer.h2tune_down]
    if not isinstance(layer, LoraLinear):
        return []
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return names if all(_is_plain(layer, name) for name in names) else []


def _is_plain(layer: LoraLinear, name: str) -> bool:
    down, up = layer.lora_A[name], layer.lora_B[name]
    return (
        type(down) is nn.Linear
        and type(up) is nn.Linear
        and up.bias is None
        and name not in layer.lora_variant
    )
