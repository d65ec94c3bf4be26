"""Folding an adapter into the weights while scoring."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from peft import LoraConfig, get_peft_model

from h2tune import H2TuneConfig
from h2tune.adapter.folded import folded

TOKENS = torch.tensor([[1, 5, 9, 12, 7], [1, 8, 3, 4, 11]])


def adapted(kind: str, dtype: torch.dtype = torch.float32):
    base = tiny.causal("llama", blocks=2).to(dtype).eval()
    targets = ["q_proj", "v_proj", "down_proj"]
    config = {
        "h2tune": lambda: H2TuneConfig(r=4, shared_rank=6, target_modules=targets),
        "lora": lambda: LoraConfig(r=4, target_modules=targets),
        "dora": lambda: LoraConfig(r=4, target_modules=targets, use_dora=True),
    }[kind]()
    model = get_peft_model(base, config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "h2tune_up" in name or "h2tune_delta" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return model, base


def weights(base):
    return {n: (p.data_ptr(), p.detach().clone()) for n, p in base.named_parameters()}


@pytest.mark.parametrize("kind", ["h2tune", "lora", "dora"])
def test_folded_scores_are_the_same_and_the_weights_come_back_to_the_bit(kind):
    model, base = adapted(kind)
    before = weights(base)
    with torch.inference_mode():
        expected = model(TOKENS).logits
        with folded(model):
            changed = [n for n, p in base.named_parameters() if p.data_ptr() != before[n][0]]
            logits = model(TOKENS).logits
        again = model(TOKENS).logits
    assert len(changed) == (0 if kind == "dora" else 6)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.equal(again, expected)
    after = weights(base)
    assert all(pointer == before[n][0] and torch.equal(t, before[n][1]) for n, (pointer, t) in after.items())


def test_an_error_while_scoring_leaves_the_weights_as_they_were():
    model, base = adapted("h2tune")
    before = weights(base)
    with pytest.raises(RuntimeError, match="no"), folded(model):
        raise RuntimeError("no")
    assert all(pointer == before[n][0] for n, (pointer, _) in weights(base).items())
    model.train()
    model(TOKENS, labels=TOKENS).loss.backward()  # nothing counts as merged any more
    assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if "h2tune_up" in n)


def test_bfloat16_weights_are_not_folded():
    model, base = adapted("h2tune", torch.bfloat16)
    before = weights(base)
    with torch.inference_mode(), folded(model):
        assert all(p.data_ptr() == before[n][0] for n, p in base.named_parameters())


def test_a_disabled_adapter_is_not_folded():
    model, _ = adapted("h2tune")
    with torch.inference_mode(), model.disable_adapter():
        expected = model(TOKENS).logits
        with folded(model):
            assert torch.equal(model(TOKENS).logits, expected)
