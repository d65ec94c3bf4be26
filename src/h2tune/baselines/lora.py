"""The adapted model of every LoRA baseline: plain PEFT LoRA, with a choice of trained and shared matrices."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from h2tune.adapter.heads import keep_in_float32
from h2tune.adapter.state import check_names, take_off
from h2tune.federation.messages import Download, Enrolment, Spec, Tensors, check_tensors, digest, spec_of
from h2tune.federation.strategy import AdaptedModel
from h2tune.quiet import quiet
from h2tune.seeds import generator, isolated
from h2tune.training.schedule import Alternation

ADAPTER = "default"
DOWN, UP = "lora_A", "lora_B"
BOTH = (DOWN, UP)


def initial_down(seed: int, module: str, rank: int, width: int, *words: object) -> Tensor:
    """Return the initial A (r, d_in), the same as h2tune's; a smaller rank has its first rows."""
    down, bound = torch.empty(rank, width), 1 / math.sqrt(width)
    return down.uniform_(-bound, bound, generator=generator(seed, "down", module, *words))


def shapes(enrolment: Enrolment, kinds: Collection[str] = BOTH, rank: int | None = None) -> Spec:
    """Return names and shapes of a client's A (r, d_in) and B (d_out, r), by module, of the given kinds."""
    spec: Spec = {}
    r = rank or enrolment.rank
    for module, (d_in, d_out) in enrolment.modules.items():
        for kind, shape in ((DOWN, (r, d_in)), (UP, (d_out, r))):
            if kind in kinds:
                spec[f"{module}.{kind}"] = (shape, "float32")
    return spec


def common_start(group: Sequence[Enrolment], seed: int, kinds: Collection[str] = BOTH) -> Tensors:
    """Return the initial A and B of the largest rank of a group of clients with one model; `seed` is the model's."""
    spec = shapes(group[0], kinds, max(enrolment.rank for enrolment in group))
    return {
        name: initial_down(seed, name.removesuffix(f".{DOWN}"), *shape)
        if name.endswith(DOWN)
        else torch.zeros(shape)
        for name, (shape, _) in spec.items()
    }


class LoraAdaptedModel(AdaptedModel):
    """A base model with a LoRA adapter, and its part in a round. A is drawn from the seed, B is zero.

    Tensors are named by module and kind, as in `model.layers.0.self_attn.q_proj.lora_A`.

    Args:
        base: The base model; `detach` returns it unchanged.
        enrolment: The client.
        alpha: LoRA's α; updates are scaled by α / r.
        dropout: Dropout on the adapter's input.
        heads: Modules trained beside the adapter; they stay private.
        seed: Seed of A.
        trained: Kinds that are trained; the others are frozen.
        shared: Kinds that are received and sent.
        bias: Whether B has a bias, which the export of some methods needs.
    """

    alternation: Alternation = "joint"

    def __init__(
        self,
        base: PreTrainedModel,
        enrolment: Enrolment,
        *,
        alpha: float,
        dropout: float,
        heads: Sequence[str],
        seed: int,
        trained: Collection[str] = BOTH,
        shared: Collection[str] = (),
        bias: bool = False,
    ) -> None:
        self.base, self.enrolment, self.heads, self.seed = base, enrolment, heads, seed
        self.trained, self.shared = trained, shared
        config = LoraConfig(
            r=enrolment.rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            lora_bias=bias,
            target_modules=list(enrolment.modules),
            modules_to_save=list(heads) or None,
            fan_in_fan_out=any(isinstance(base.get_submodule(m), Conv1D) for m in enrolment.modules),
        )
        with quiet(), isolated(seed, "lora"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`lora_bias=True`")  # concerns merging alone
            self.model = get_peft_model(base, config)
        keep_in_float32(self.model, heads)
        self.layers: dict[str, Any] = {m: base.get_submodule(m) for m in enrolment.modules}
        self.reset()

    @torch.no_grad()
    def reset(self, *words: object) -> None:
        """Reset A, drawn for the purpose that `words` name, and B to zero; only `trained` has gradients."""
        for module, layer in self.layers.items():
            down = layer.lora_A[ADAPTER].weight
            down.copy_(initial_down(self.seed, module, *down.shape, *words))
            layer.lora_B[ADAPTER].weight.zero_()
            for kind in BOTH:
                getattr(layer, kind)[ADAPTER].requires_grad_(kind in self.trained)
            if (bias := layer.lora_B[ADAPTER].bias) is not None:
                bias.requires_grad_(False)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the adapter's matrices by name."""
        return {
            f"{module}.{kind}": getattr(layer, kind)[ADAPTER].weight
            for module, layer in self.layers.items()
            for kind in BOTH
        }

    def phases(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        heads = {n: p for n, p in self.model.named_parameters() if f".modules_to_save.{ADAPTER}." in n}
        return {"specific": self._of(self.trained) | heads}

    @torch.no_grad()
    def receive(self, download: Download) -> None:
        if download.tensors:
            mine = self._of(self.shared)
            check_tensors(download.tensors, spec_of(mine), "download")
            for name, tensor in download.tensors.items():
                mine[name].copy_(tensor)

    def loaded_digest(self) -> str:
        return digest({name: parameter.detach() for name, parameter in self._of(self.shared).items()})

    def send(self) -> Tensors:
        return {name: p.detach().to("cpu", copy=True) for name, p in self._of(self.shared).items()}

    def learned(self) -> Tensors:
        """Return the same from PEFT's own state dict."""
        saved = get_peft_model_state_dict(self.model, adapter_name=ADAPTER, save_embedding_layers=False)
        return {name: saved[f"base_model.model.{name}.weight"].cpu() for name in self._of(self.shared)}

    def state(self) -> Tensors:
        return {name: p.detach().to("cpu", copy=True) for name, p in self.phases()["specific"].items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        mine = self.phases()["specific"]
        expected, given = ({n: tuple(t.shape) for n, t in tensors.items()} for tensors in (mine, state))
        check_names(expected, given, "private state")
        for name, tensor in state.items():
            mine[name].copy_(tensor)

    def detach(self) -> PreTrainedModel:
        take_off(self.model, {head: self.base.get_submodule(head).original_module for head in self.heads})
        return self.base

    def _of(self, kinds: Collection[str]) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.parameters().items() if name.rpartition(".")[2] in kinds}
