"""Classification heads of base models: their modules, their last layer, and a fresh one for a client's labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from h2tune.errors import H2TuneError
from h2tune.seeds import generator

_NEW: WeakKeyDictionary[PreTrainedModel, list[str]] = WeakKeyDictionary()
"""Model → names of its modules that were not in its folder, besides the head."""


def note_new_modules(model: PreTrainedModel, missing: Iterable[str], name: str) -> None:
    """Note which poolers of a classifier have no weights, such as that of a masked language model.

    Args:
        model: The classifier.
        missing: Names of the weights that its folder lacks.
        name: What the user calls it.

    Raises:
        H2TuneError: Something else besides the head has no weights.
    """
    prefix = f"{model.base_model_prefix}."
    inside = sorted({key.rpartition(".")[0] for key in missing if key.startswith(prefix)})
    poolers = sorted(
        {place[: place.index("pooler") + len("pooler")] for place in inside if "pooler" in place}
    )
    if others := [place for place in inside if "pooler" not in place]:
        raise H2TuneError(
            f"it has no weights for {others[0]}",
            where=f"model {name}",
            remedy=f"Check that it is a model of type {model.config.model_type}",
        )
    _NEW[model] = poolers


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of a classifier's modules that are trained and stay private.

    They are those outside its encoder, and before them a pooler that has no weights in the model's folder: it is drawn
    anew at each load, so that an adapter without it would be useless.
    """
    return _NEW.get(model, []) + [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def last_layer(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Return the name of a classifier's last layer, which gives the scores of the labels, and the layer."""
    *_, (path, last) = [
        (f"{name}.{inner}" if inner else name, module)
        for name in head_modules(model)
        for inner, module in model.get_submodule(name).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return path, last


def set_head(model: PreTrainedModel, labels: Sequence[str], seed: int) -> None:
    """Give a classifier a fresh last layer for `labels`, drawn from the seed, and put their names in its configuration.

    A model that was trained on a task before has that task's label names, which an export must not keep.
    """
    path, last = last_layer(model)
    fresh = nn.Linear(last.in_features, len(labels), bias=last.bias is not None)
    with torch.no_grad():
        fresh.weight.normal_(0.0, 0.02, generator=generator(seed, "head"))
        if fresh.bias is not None:
            fresh.bias.zero_()
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, fresh.to(last.weight.device, last.weight.dtype))
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    if hasattr(model, "num_labels"):
        model.num_labels = len(labels)
