"""A client's tensors: the parameters of each phase, the private state, and strict loading."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from h2tune.adapter import spare
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.shared import SharedMiddle
from h2tune.errors import H2TuneError

RELATION = "relation.logits"
FRAMES = ".h2tune_frame_"
SHARED_PHASE = (".h2tune_delta.", ".h2tune_scores.")


def phase_parameters(
    model: PeftModel, shared: SharedMiddle | None, adapter_name: str = "default"
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the parameters of the shared phase (Δ, S, Z) and of the specific phase (A, B, head), by name.

    Equations (6) and (7). S is in neither where the mask does not depend on it: with r = R, and with the leading mask.
    """
    in_shared: dict[str, nn.Parameter] = {}
    in_specific: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if ".h2tune_" in name and name.endswith(f".{adapter_name}"):
            if ".h2tune_scores." in name and not _scores_choose(model, name):
                continue
            (in_shared if any(part in name for part in SHARED_PHASE) else in_specific)[name] = parameter
        elif f".modules_to_save.{adapter_name}." in name:
            in_specific[name] = parameter
    if shared is not None and shared.learns_relation:
        in_shared[RELATION] = shared.logits
    return in_shared, in_specific


def private_tensors(
    model: PeftModel, shared: SharedMiddle | None, adapter_name: str = "default"
) -> dict[str, Tensor]:
    """Return the model's own tensors that make up a client's state between rounds: A, B, S, Ω, heads, Z, and Δ.

    The frames of an anchored basis are not included: they never change, and are stored once.
    """
    state: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=adapter_name, save_embedding_layers=False
    )
    state = {name: tensor for name, tensor in state.items() if FRAMES not in name}
    return state if shared is None else state | {RELATION: shared.logits}


def private_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU of the tensors of `private_tensors`."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def load_private_state(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Load a state of `private_state` into the tensors of `private_tensors`; every name and shape must match.

    Raises:
        H2TuneError: If a tensor is missing, unexpected or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    # states of earlier runs contain the frames as well, which are set already
    state = {name: tensor for name, tensor in state.items() if FRAMES not in name}
    check_names(expected, {name: tuple(tensor.shape) for name, tensor in state.items()}, "private state")
    with torch.no_grad():
        for name, tensor in state.items():
            tensors[name].copy_(tensor)


def take_off(model: PeftModel, heads: Mapping[str, nn.Module]) -> nn.Module:
    """Remove all adapters from a model and return its base model as it was.

    PEFT's `unload` leaves the trained copy of a head in the model, where the next client would use it; and it takes ten
    times as long, as it looks for weights that are off the device under every module.

    Args:
        model: A PEFT model.
        heads: The base model's own heads by name, as they were before the adapter was attached.
    """
    base: nn.Module = model.get_base_model()
    for parent in list(base.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
                if isinstance(child, H2TuneLayer):
                    spare.keep(child)
    for name, head in heads.items():
        path, _, attribute = name.rpartition(".")
        setattr(base.get_submodule(path), attribute, head)
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


def check_names(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Check that tensors have the expected names and shapes.

    Raises:
        H2TuneError: Names the first tensors that are missing, unexpected or of another shape.
    """
    problems = [f"missing {name}" for name in sorted(expected.keys() - given.keys())]
    problems += [f"unexpected {name}" for name in sorted(given.keys() - expected.keys())]
    problems += [
        f"{name} is {given[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & given.keys())
        if expected[name] != given[name]
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise H2TuneError(f"{'; '.join(problems[:3])}{more}", where=what)


def _scores_choose(model: PeftModel, scores_name: str) -> bool:
    path, _, adapter_name = scores_name.rpartition(".h2tune_scores.")
    layer = model.get_submodule(path)
    index: Tensor = layer.h2tune_index[adapter_name]
    scores: Tensor = layer.h2tune_scores[adapter_name]
    return index.numel() < scores.numel() and model.peft_config[adapter_name].mask != "leading"
