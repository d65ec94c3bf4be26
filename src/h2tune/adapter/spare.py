"""Layers that one client's adapter leaves behind for the next client of the same base model.

Creating a layer is half the work of attaching an adapter to a small model: it holds nine dictionaries.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from h2tune.adapter.config import H2TuneConfig
from h2tune.adapter.layer import H2TuneLayer

_kept: WeakKeyDictionary[nn.Module, H2TuneLayer] = WeakKeyDictionary()
"""Base layer → the layer that was taken off it."""


def keep(layer: H2TuneLayer) -> None:
    """Keep a layer that was taken off its base layer, if it may serve again.

    It must have no frames, which are large, and no hooks, which would go on to the next client. The base layer must be
    linear and in float32: elsewhere a new layer's A is rounded to the type of the base weights.
    """
    base = layer.base_layer
    if not isinstance(base, nn.Linear) or base.weight.dtype != torch.float32:
        return
    if len(layer.h2tune_down) != 1 or layer.basis_scale or _hooked(layer):
        return
    for name in layer.adapter_layer_names:
        for parameter in getattr(layer, name).values():
            parameter.grad = None
    for names in (layer.live, layer.place, layer.merged_adapters):
        names.clear()
    layer.base_layer = None  # a base model that nobody uses any more is freed
    _kept[base] = layer


def _hooked(layer: H2TuneLayer) -> bool:
    parameters = [p for name in layer.adapter_layer_names for p in getattr(layer, name).values()]
    own = bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
    return own or any(p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)


def take(base: nn.Module, adapter_name: str, config: H2TuneConfig, key: str) -> H2TuneLayer | None:
    """Return the layer kept for a base layer, with a new adapter's values; one that does not fit is dropped."""
    layer = _kept.pop(base, None)
    if layer is None or config.basis != "free" or adapter_name not in layer.h2tune_down:
        return None
    down, scores = layer.h2tune_down[adapter_name], layer.h2tune_scores[adapter_name]
    dropout = getattr(layer.h2tune_dropout[adapter_name], "p", 0.0)
    if (down.dtype, base.weight.dtype, down.device) != (torch.float32, torch.float32, base.weight.device):
        return None
    if (len(down), len(scores), dropout) != (config.r, config.shared_rank or config.r, config.dropout):
        return None
    layer.base_layer = base
    layer.restart(adapter_name, config, key)
    return layer
