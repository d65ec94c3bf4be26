"""The adapter through PEFT's API."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import tiny
from peft import LoraConfig, PeftModel, get_peft_model

from h2tune import H2TuneConfig
from h2tune.adapter.export import save_adapter, save_lora, to_lora
from h2tune.adapter.layer import H2TuneLayer

INPUTS = {
    "input_ids": torch.tensor([[1, 5, 9, 14, 20]]),
    "attention_mask": torch.ones(1, 5, dtype=torch.long),
}


def model_of(family: str):
    return tiny.classifier(family) if family in tiny.ENCODERS else tiny.causal(family)


def shake(model, seed: int = 0) -> None:
    """Set every adapter parameter to random values."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "h2tune_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
        for module in model.modules():
            if isinstance(module, H2TuneLayer):
                for received in module.h2tune_received.values():
                    received.add_(torch.randn(received.shape, generator=draw) * 0.1)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(**INPUTS).logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_attaches_saves_loads_merges_and_exports(family, tmp_path):
    base = model_of(family)
    heads = [n for n, c in base.named_children() if n in ("classifier", "score", "head", "pre_classifier")]
    config = H2TuneConfig(r=3, shared_rank=5, modules_to_save=heads if family in tiny.ENCODERS else None)
    plain = logits(base)
    model = get_peft_model(base, config)
    assert torch.equal(logits(model), plain)  # B = 0
    shake(model)
    changed = logits(model)
    assert not torch.allclose(changed, plain, atol=1e-3)

    save_adapter(model, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(model_of(family), tmp_path / "adapter")
    assert torch.equal(logits(loaded), changed)

    save_lora(model, tmp_path / "lora")
    lora = PeftModel.from_pretrained(model_of(family), tmp_path / "lora")
    assert lora.peft_config["default"].peft_type == "LORA"
    assert torch.allclose(logits(lora), changed, atol=1e-5)

    model.merge_adapter()
    assert torch.allclose(logits(model), changed, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(logits(model), changed, atol=1e-5)
    assert torch.allclose(logits(model.merge_and_unload()), changed, atol=1e-5)


def test_an_adapter_is_saved_without_pefts_empty_card(tmp_path, monkeypatch):
    model = get_peft_model(tiny.causal("llama"), H2TuneConfig(r=2, shared_rank=4))
    asked = []
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: asked.append(folder))
    save_adapter(model, tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert not asked
    model.create_or_update_model_card(str(tmp_path))  # PEFT's own is back
    assert asked == [str(tmp_path)]


def test_several_named_adapters_live_on_one_model():
    model = get_peft_model(tiny.causal("llama"), H2TuneConfig(r=2, shared_rank=4))
    shake(model)
    first = logits(model)
    model.add_adapter("other", H2TuneConfig(r=4, shared_rank=4, mask="block", init_seed=7))
    assert torch.equal(logits(model), first)
    model.set_adapter("other")
    assert torch.equal(logits(model), logits(tiny.causal("llama")))
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable and all(n.endswith(".other") for n in trainable)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny.causal("llama")))
    model.set_adapter("default")
    model.delete_adapter("other")
    assert torch.equal(logits(model), first)


def test_with_full_rank_and_nothing_received_the_first_step_is_that_of_lora():
    """r = R and M = 0: A and B get exactly LoRA's gradients (PAPER.md)."""
    ours = get_peft_model(tiny.causal("llama"), H2TuneConfig(r=4, alpha=8))
    config, tensors = to_lora(ours)
    lora = get_peft_model(
        tiny.causal("llama"), LoraConfig(r=4, lora_alpha=8, target_modules=config.target_modules)
    )
    lora.load_state_dict(
        {n.replace(".weight", ".default.weight"): t for n, t in tensors.items()}, strict=False
    )
    for model in (ours, lora):
        model.train()
        model(**INPUTS).logits.square().mean().backward()
    grads = {
        n.replace("lora_B.default.weight", "h2tune_up.default"): p.grad for n, p in lora.named_parameters()
    }
    ups = {n: p.grad for n, p in ours.named_parameters() if "h2tune_up" in n}
    assert ups and all(torch.allclose(g, grads[n], atol=1e-6) for n, g in ups.items())


def test_the_same_model_and_seed_start_alike_and_another_seed_does_not():
    first, again, other = (
        to_lora(get_peft_model(tiny.causal("llama"), H2TuneConfig(r=2, init_seed=seed)))[1]
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_merging_what_is_not_finite_is_refused():
    model = get_peft_model(tiny.causal("llama"), H2TuneConfig(r=2))
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "h2tune_up" in n).fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        model.merge_adapter(safe_merge=True)


def test_a_rank_above_what_a_layer_has_is_refused():
    with pytest.raises(ValueError, match="exceeds the size of layer"):
        get_peft_model(tiny.causal("llama", width=16), H2TuneConfig(r=12))


@pytest.mark.parametrize(
    ("options", "message"), [({"r": 0}, "at least 1"), ({"r": 8, "shared_rank": 4}, "at least `r`")]
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        H2TuneConfig(**options)


def test_bfloat16_models_keep_float32_adapters():
    model = get_peft_model(tiny.causal("llama").bfloat16(), H2TuneConfig(r=2, shared_rank=3))
    shake(model)
    assert {p.dtype for n, p in model.named_parameters() if "h2tune_" in n} == {torch.float32}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(logits(model)).all()
