"""The adapter as a PEFT tuner, and its registration with PEFT."""

from __future__ import annotations

import contextlib
from typing import Any

from peft import mapping as peft_mapping
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from h2tune.adapter import spare
from h2tune.adapter.config import PEFT_TYPE, H2TuneConfig
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.roles import Placement, find_roles, target_modules
from h2tune.errors import H2TuneError


class H2TuneModel(BaseTuner):
    """Injects h2tune adapters into the linear layers of a Transformers model.

    Created by `peft.get_peft_model(model, H2TuneConfig(...))`, like any PEFT method.
    """

    prefix = "h2tune_"
    tuner_layer_cls = H2TuneLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's own attribute

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config  # _prepare_model sets the targets, as it has the modules

    def _prepare_model(self, peft_config: H2TuneConfig, model: nn.Module) -> None:
        if peft_config.target_modules is None:
            peft_config.target_modules = target_modules(find_roles(model, peft_config.roles))
        self._places: dict[str, Placement] = {}
        with contextlib.suppress(H2TuneError):  # the user's own target modules may have no role
            self._places = {p.module: p for p in find_roles(model, peft_config.roles)}

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # PEFT 0.21 also reads the weight of a restored head, but a head of several layers has none; and it moves an
        # adapter to the base layer's device, where `H2TuneLayer.update_layer` created it
        setattr(parent, child_name, new_module)

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freeze what is neither an adapter's nor in a trained copy of a head.

        PEFT's own takes as long as the rest of attaching: it matches every name against all prefixes of adapters.
        """
        kept: set[int] = set()
        for module in model.modules():
            if isinstance(module, H2TuneLayer):
                dictionaries = (getattr(module, name) for name in module.adapter_layer_names)
                kept.update(id(p) for dictionary in dictionaries for p in dictionary.values())
            elif isinstance(module, AuxiliaryTrainingWrapper):
                kept.update(map(id, module.parameters()))
        for parameter in model.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad = False

    def _create_and_replace(
        self,
        config: H2TuneConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, H2TuneLayer):
            layer = target
            layer.update_layer(adapter_name, config, current_key)
        else:
            if not (isinstance(target, nn.Linear | Conv1D) or hasattr(target, "in_features")):
                raise TypeError(f"module '{current_key}' is a {type(target).__name__}, not a linear layer")
            kept = spare.take(target, adapter_name, config, current_key)
            layer = kept or H2TuneLayer(target, adapter_name, config, current_key)
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)
        if current_key in self._places:
            placement = self._places[current_key]
            layer.place[adapter_name] = (placement.block, placement.role)


def register() -> None:
    """Register h2tune with PEFT, for `get_peft_model`, saving and loading.

    `peft.utils.register_peft_method` (0.21) accepts only names in PEFT's own `PeftType`, so its tables are filled here.
    """
    peft_mapping.PEFT_TYPE_TO_CONFIG_MAPPING.setdefault(PEFT_TYPE, H2TuneConfig)
    peft_mapping.PEFT_TYPE_TO_TUNER_MAPPING.setdefault(PEFT_TYPE, H2TuneModel)
    peft_mapping.PEFT_TYPE_TO_PREFIX_MAPPING.setdefault(PEFT_TYPE, H2TuneModel.prefix)
