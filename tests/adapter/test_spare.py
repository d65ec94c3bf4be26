"""A layer that serves the next client is as a new one."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from helpers import tiny
from peft import get_peft_model

from h2tune.adapter import H2TuneConfig, spare
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.state import take_off

FREE = {"r": 3, "shared_rank": 4, "init_seed": 5}


def attached(base, **changes):
    return get_peft_model(base, H2TuneConfig(**FREE | changes))


def layers(model):
    return [module for module in model.modules() if isinstance(module, H2TuneLayer)]


def used(base, **changes):
    """Attach an adapter, leave traces in all of it, and take it off; return its layers."""
    model = attached(base, **changes)
    ids = torch.arange(6).view(1, -1)
    for layer in layers(model):
        layer.h2tune_received["default"].fill_(0.1)
    model.eval()
    model(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(1.0)
        for layer in layers(model):
            layer.h2tune_index["default"].add_(1)
            layer.live["default"] = torch.ones(3, 3)
            layer.set_adapter([], inference_mode=True)
            layer.enable_adapters(False)
    found = layers(model)
    take_off(model, {})
    return found


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.5}], ids=["plain", "dropout"])
def test_a_kept_layer_is_as_a_new_one(changes):
    """For a client with other settings than the one before it."""
    base = tiny.causal("llama", blocks=2)
    own = {"alpha": 3.0, "init_seed": 6, "mask": "leading"} | changes
    new = attached(copy.deepcopy(base), **own)
    before = used(base, **changes)
    model = attached(base, **own)
    assert layers(model) == before, "the layers were not kept"
    found, fresh = model.state_dict(), new.state_dict()
    assert list(found) == list(fresh) and all(torch.equal(found[name], fresh[name]) for name in found)
    flags = [[(n, p.requires_grad, p.grad) for n, p in m.named_parameters()] for m in (model, new)]
    assert flags[0] == flags[1]
    modes = [[(n, module.training) for n, module in m.named_modules() if "h2tune" in n] for m in (model, new)]
    assert modes[0] == modes[1]
    for one, two in zip(layers(model), layers(new), strict=True):
        assert one.disable_adapters == two.disable_adapters
        for name in ("scaling", "basis_scale", "place", "live", "merged_adapters", "training"):
            assert getattr(one, name) == getattr(two, name), name
        assert one.active_adapters == two.active_adapters
    ids = torch.arange(6).view(1, -1)
    assert torch.equal(model.eval()(input_ids=ids).logits, new.eval()(input_ids=ids).logits)


@pytest.mark.parametrize(
    "changes",
    [{"r": 2}, {"shared_rank": 5}, {"dropout": 0.5}, {"basis": "anchored"}],
    ids=["rank", "common rank", "dropout", "frames"],
)
def test_a_layer_of_another_kind_is_not_used_again(changes):
    base = tiny.causal("llama", blocks=1)
    before = used(base)
    model, new = attached(base, **changes), attached(tiny.causal("llama", blocks=1), **changes)
    assert not set(layers(model)) & set(before)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (model, new)]
    assert shapes[0] == shapes[1]


def test_a_base_model_of_another_type_gets_new_layers():
    """A is drawn in float32, and rounded to the base model's type."""
    base = tiny.causal("llama", blocks=1)
    before = used(base)
    assert not set(layers(attached(base.to(torch.bfloat16)))) & set(before)


@pytest.mark.parametrize("basis", ["free", "anchored"])
def test_a_layer_with_frames_is_not_kept(basis):
    base = tiny.causal("llama", blocks=1)
    model = attached(base, basis="anchored")
    before = layers(model)
    take_off(model, {})
    assert not any(layer in before for layer in spare._kept.values())
    assert not set(layers(attached(base, basis=basis))) & set(before)


@pytest.mark.parametrize("where", ["layer", "parameter", "gradient"])
def test_a_layer_with_a_hook_is_not_kept(where):
    base = tiny.causal("llama", blocks=1)
    model = attached(base)
    before = layers(model)
    for layer in before:
        up = layer.h2tune_up["default"]
        if where == "layer":
            layer.register_forward_hook(lambda *_: None)
        elif where == "parameter":
            up.register_hook(lambda gradient: gradient)
        else:
            up.register_post_accumulate_grad_hook(lambda _: None)
    take_off(model, {})
    assert not set(layers(attached(base))) & set(before)


def test_kept_layers_do_not_keep_a_base_model_in_memory():
    base = tiny.causal("llama", blocks=1)
    used(base)
    gone = weakref.ref(base.model.layers[0].self_attn.q_proj)
    del base
    gc.collect()
    assert gone() is None
