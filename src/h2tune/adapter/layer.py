"""The adapter in one linear layer: equation (1), y = W x + (α / r) · B (I + T) A x."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils.other import transpose
from torch import Tensor, nn
from torch.nn.functional import linear

from h2tune.adapter.config import H2TuneConfig
from h2tune.functional.masks import Mask, choose_mask, gate, scatter
from h2tune.seeds import generator


class H2TuneLayer(nn.Module, BaseTunerLayer):
    """A frozen linear (or Conv1D) layer with h2tune adapters beside it.

    Parameters of one adapter: down A (r, d_in), up B (d_out, r), delta Δ (r, r), scores S (R, R). Buffers: the received
    middle matrix M at Ω (r, r), and Ω itself (r²); in an anchored basis the frames A₀ (R, d_in) and B₀ (d_out, R).
    """

    # PEFT's own, declared for the type checker
    get_base_layer: Any
    base_layer: Any
    set_adapter: Any
    active_adapters: Any
    _cast_input_dtype: Any
    _move_adapter_to_device_of_base_layer: Any

    adapter_layer_names = ("h2tune_down", "h2tune_up", "h2tune_delta", "h2tune_scores")
    other_param_names = (
        *("h2tune_received", "h2tune_index", "h2tune_frame_down", "h2tune_frame_up"),
        *("h2tune_dropout", "scaling", "basis_scale", "place"),
    )

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: H2TuneConfig, key: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.fan_in_fan_out = type(self.get_base_layer()).__name__ == "Conv1D"
        self.h2tune_down = nn.ParameterDict()
        self.h2tune_up = nn.ParameterDict()
        self.h2tune_delta = nn.ParameterDict()
        self.h2tune_scores = nn.ParameterDict()
        self.h2tune_received = BufferDict(persistent=True)
        self.h2tune_index = BufferDict(persistent=True)
        self.h2tune_frame_down = BufferDict(persistent=True)
        self.h2tune_frame_up = BufferDict(persistent=True)
        self.h2tune_dropout = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.basis_scale: dict[str, float] = {}
        self.place: dict[str, tuple[int, str]] = {}
        """Adapter name → (block, role), where the layer has a known role."""
        self.live: dict[str, Tensor] = {}
        """Adapter name → M at Ω (r, r) with a gradient to the relation, while the relation is trained."""
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, key)

    def update_layer(self, adapter_name: str, config: H2TuneConfig, key: str) -> None:
        """Add an adapter. A is drawn as in LoRA, from the seed and the layer's name; B, Δ and M are zero.

        Raises:
            ValueError: If the rank exceeds the layer's width.
        """
        rank, size = config.r, config.shared_rank or config.r
        if rank > min(self.in_features, self.out_features):
            raise ValueError(
                f"rank {rank} exceeds the size of layer '{key}' ({self.in_features} in, {self.out_features} out)"
            )
        down, scores = self._drawn(config, key)
        self.h2tune_down[adapter_name] = nn.Parameter(down)
        self.h2tune_up[adapter_name] = nn.Parameter(torch.zeros(self.out_features, rank))
        self.h2tune_delta[adapter_name] = nn.Parameter(torch.zeros(rank, rank))
        self.h2tune_scores[adapter_name] = nn.Parameter(scores)
        self.h2tune_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.scaling[adapter_name] = config.alpha / rank
        self._move_adapter_to_device_of_base_layer(adapter_name)
        device = self.h2tune_delta[adapter_name].device
        self.h2tune_received[adapter_name] = torch.zeros(rank, rank, device=device)
        self.h2tune_index[adapter_name] = choose_mask(scores, rank, config.mask).to(device)
        if config.basis == "anchored":
            self.basis_scale[adapter_name] = config.basis_scale
            self.h2tune_frame_down[adapter_name] = torch.zeros(size, self.in_features, device=device)
            self.h2tune_frame_up[adapter_name] = torch.zeros(self.out_features, size, device=device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _drawn(self, config: H2TuneConfig, key: str) -> tuple[Tensor, Tensor]:
        """Return A (r, d_in) and S (R, R) of a new adapter."""
        size = config.shared_rank or config.r
        down = torch.empty(config.r, self.in_features)
        bound = 1 / math.sqrt(self.in_features)  # nn.Linear's and LoRA's: kaiming_uniform with a = √5
        down.uniform_(-bound, bound, generator=generator(config.init_seed, "down", key))
        # All modules and clients start with the same scores, so that masks of different ranks nest: an entry of a
        # client of low rank is one of every client of higher rank. Deviation: the release draws scores per module.
        return down, torch.rand(size, size, generator=generator(config.init_seed, "scores"))

    @torch.no_grad()
    def restart(self, adapter_name: str, config: H2TuneConfig, key: str) -> None:
        """Reset the layer's one adapter to the values that a new one would have, without new tensors."""
        down, scores = self._drawn(config, key)
        self.h2tune_down[adapter_name].copy_(down)
        self.h2tune_scores[adapter_name].copy_(scores)
        for zero in (self.h2tune_up, self.h2tune_delta, self.h2tune_received):
            zero[adapter_name].zero_()
        self.h2tune_index[adapter_name].copy_(choose_mask(scores, config.r, config.mask))
        self.scaling[adapter_name] = config.alpha / config.r
        self.set_adapter([adapter_name], inference_mode=config.inference_mode)
        self._disable_adapters = False
        self.training = True
        for name, child in self.named_children():
            if name != "base_layer":
                child.train()

    def middle(self, adapter_name: str) -> Tensor:
        """Return T (r, r) = gather(M + Δ, Ω), equation (2), with gradients to Δ, S and, while it is trained, Z."""
        received = self.live.get(adapter_name)
        if received is None:
            received = self.h2tune_received[adapter_name]
        value: Tensor = received + self.h2tune_delta[adapter_name]
        scores = self.h2tune_scores[adapter_name]
        if scores.requires_grad and torch.is_grad_enabled():
            value = value * gate(scores, self.h2tune_index[adapter_name])
        return value

    def choose_mask(self, adapter_name: str, mask: Mask) -> None:
        """Update Ω from the scores; Δ must be zero where Ω changes."""
        scores, rank = self.h2tune_scores[adapter_name].detach(), len(self.h2tune_delta[adapter_name])
        self.h2tune_index[adapter_name].copy_(choose_mask(scores, rank, mask))

    def set_frames(self, adapter_name: str, down: Tensor, up: Tensor) -> None:
        """Set the frames A₀ (R, d_in) and B₀ (d_out, R) of an anchored basis."""
        self.h2tune_frame_down[adapter_name].copy_(down)
        self.h2tune_frame_up[adapter_name].copy_(up)

    def anchored_up(self, adapter_name: str) -> Tensor:
        """Return s · B₀ T (d_out, R) of equation (8), T at its entries of the (R, R) grid."""
        size = self.h2tune_frame_down[adapter_name].shape[0]
        middle = scatter(self.middle(adapter_name), self.h2tune_index[adapter_name], size)
        up: Tensor = self.h2tune_frame_up[adapter_name] @ middle
        return up * self.basis_scale[adapter_name]

    def as_lora(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """Return the LoRA pair (k, d_in), (d_out, k) that computes the same; its second matrix contains α / r.

        k is r, or r + R in an anchored basis.
        """
        down, up = self.h2tune_down[adapter_name], self.h2tune_up[adapter_name]
        if adapter_name in self.basis_scale:
            anchored = self.anchored_up(adapter_name).to(up.dtype)
            frame = self.h2tune_frame_down[adapter_name].to(down.dtype)
            return torch.cat([down, frame]), torch.cat([up * self.scaling[adapter_name], anchored], dim=1)
        folded = up + up @ self.middle(adapter_name).to(up.dtype)  # B (I + T)
        return down, folded * self.scaling[adapter_name]

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """Return the update of the weight, (α / r) · B (I + T) A or that of (8), in the base weight's shape."""
        down, up = self.as_lora(adapter_name)
        weight: Tensor = transpose((up.float() @ down.float()).to(down.dtype), self.fan_in_fan_out)
        return weight

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the update of the given (or active) adapters to the base weight.

        Raises:
            ValueError: The base weight is quantised; or, with `safe_merge`, the merged weight would not be finite.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.h2tune_down:
                continue
            weight = self.get_base_layer().weight
            if not weight.is_floating_point():
                raise ValueError(
                    "an adapter cannot be merged into a quantised weight; load the base model unquantised"
                )
            with torch.no_grad():
                merged = weight + self.get_delta_weight(name).to(weight.dtype)
                if safe_merge and not torch.isfinite(merged).all():
                    raise ValueError(f"merging adapter '{name}' would give weights that are not finite")
                weight.data = merged
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Subtract all merged adapters from the base weight."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            if name in self.h2tune_down:
                weight = self.get_base_layer().weight
                with torch.no_grad():
                    weight.data = weight - self.get_delta_weight(name).to(weight.dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the base layer and every active adapter: equation (1).

        Args:
            x: Input (…, d_in).
            *args: Passed on to the base layer.
            **kwargs: Passed on to the base layer.

        Returns:
            Output (…, d_out).
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name not in self.h2tune_down:
                continue
            down, up, scaling = self.h2tune_down[name], self.h2tune_up[name], self.scaling[name]
            inputs = self._cast_input_dtype(self.h2tune_dropout[name](x), down.dtype)
            if name in self.basis_scale:
                # (8) as one LoRA pair: fewer passes over inputs and outputs than two
                down, up = self.as_lora(name)
                result = _plus(result, linear(inputs, down), up)
                continue
            hidden = linear(inputs, down)  # (…, r)
            hidden = hidden + linear(hidden, self.middle(name).to(hidden.dtype))  # (I + T) A x
            result = _plus(result, hidden * scaling, up)
        return result

    def __repr__(self) -> str:
        return "h2tune." + super().__repr__()


def _plus(result: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """Return result + hidden @ upᵀ, in one pass over the result where the types allow."""
    if result.dtype != hidden.dtype or result.dtype != up.dtype:
        return result + linear(hidden, up).to(result.dtype)
    flat = torch.addmm(result.flatten(0, -2), hidden.flatten(0, -2), up.t())
    return flat.view(result.shape)
