"""The role of every module in the known families: exactly these, and no others."""

from __future__ import annotations

import peft
import pytest
import torch
from helpers import tiny
from torch import nn

from h2tune.adapter import roles as module
from h2tune.adapter.families import FAMILIES
from h2tune.adapter.roles import depth, find_roles, target_modules

LLAMA = """self_attn.q_proj attn.q 32 32, self_attn.k_proj attn.k 32 16, self_attn.v_proj attn.v 32 16,
    self_attn.o_proj attn.o 32 32, mlp.gate_proj mlp.gate 32 48, mlp.up_proj mlp.up 32 48,
    mlp.down_proj mlp.down 48 32"""
BERT = """attention.self.query attn.q 32 32, attention.self.key attn.k 32 32, attention.self.value attn.v 32 32,
    attention.output.dense attn.o 32 32, intermediate.dense mlp.up 32 48, output.dense mlp.down 48 32"""
EXPECTED = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"), ("model.layers", LLAMA)),
    "phi3": (
        "model.layers",
        """self_attn.qkv_proj attn.qkv 32 64, self_attn.o_proj attn.o 32 32,
        mlp.gate_up_proj mlp.gate_up 32 96, mlp.down_proj mlp.down 48 32""",
    ),
    "gpt2": (
        "transformer.h",
        "attn.c_attn attn.qkv 32 96, attn.c_proj attn.o 32 32, mlp.c_fc mlp.up 32 48, mlp.c_proj mlp.down 48 32",
    ),
    "gpt_neox": (
        "gpt_neox.layers",
        """attention.query_key_value attn.qkv 32 96, attention.dense attn.o 32 32,
        mlp.dense_h_to_4h mlp.up 32 48, mlp.dense_4h_to_h mlp.down 48 32""",
    ),
    "opt": (
        "model.decoder.layers",
        """self_attn.q_proj attn.q 32 32, self_attn.k_proj attn.k 32 32, self_attn.v_proj attn.v 32 32,
        self_attn.out_proj attn.o 32 32, fc1 mlp.up 32 48, fc2 mlp.down 48 32""",
    ),
    "falcon": (
        "transformer.h",
        """self_attention.query_key_value attn.qkv 32 48, self_attention.dense attn.o 32 32,
        mlp.dense_h_to_4h mlp.up 32 48, mlp.dense_4h_to_h mlp.down 48 32""",
    ),
    "bloom": (
        "transformer.h",
        """self_attention.query_key_value attn.qkv 32 96, self_attention.dense attn.o 32 32,
        mlp.dense_h_to_4h mlp.up 32 128, mlp.dense_4h_to_h mlp.down 128 32""",
    ),
    "bert": ("bert.encoder.layer", BERT),
    "roberta": ("roberta.encoder.layer", BERT),
    "distilbert": (
        "distilbert.transformer.layer",
        """attention.q_lin attn.q 32 32, attention.k_lin attn.k 32 32, attention.v_lin attn.v 32 32,
        attention.out_lin attn.o 32 32, ffn.lin1 mlp.up 32 48, ffn.lin2 mlp.down 48 32""",
    ),
    "modernbert": (
        "model.layers",
        "attn.Wqkv attn.qkv 32 96, attn.Wo attn.o 32 32, mlp.Wi mlp.gate_up 32 96, mlp.Wo mlp.down 48 32",
    ),
}


def rows(placements):
    return [(p.module, p.block, p.role, p.d_in, p.d_out) for p in placements]


def pretrained(family, **options):
    """The model as h2tune loads it: encoders with a head, decoders without."""
    return tiny.classifier(family, **options) if family in tiny.ENCODERS else tiny.causal(family, **options)


def test_all_sixteen_families_are_expected():
    assert set(EXPECTED) == set(tiny.FAMILIES)
    assert set(tiny.FAMILIES) <= set(FAMILIES)


@pytest.mark.parametrize("family", EXPECTED)
def test_known_families_exactly(family):
    stack, block = EXPECTED[family]
    found = find_roles(pretrained(family, blocks=3))
    expected = []
    for index in range(3):
        for line in block.split(","):
            path, role, d_in, d_out = line.split()
            expected.append((f"{stack}.{index}.{path}", index, role, int(d_in), int(d_out)))
    assert rows(found) == expected
    assert depth(found) == 3


@pytest.mark.parametrize("family", EXPECTED)
def test_every_linear_layer_of_a_block_and_none_beside(family):
    stack, _ = EXPECTED[family]
    model = pretrained(family, blocks=2)
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"}
    assert {p.module for p in find_roles(model)} == {n for n in linear if n.startswith(stack)}
    assert linear - {p.module for p in find_roles(model)}  # a head there is


@pytest.mark.parametrize("family", EXPECTED)
def test_widths_are_those_that_the_layer_takes_and_gives(family):
    model = pretrained(family)
    for place in find_roles(model):
        assert model.get_submodule(place.module)(torch.zeros(1, place.d_in)).shape == (1, place.d_out)


@pytest.mark.parametrize("family", EXPECTED)
def test_the_meta_device_will_do(family):
    with torch.device("meta"):
        model = pretrained(family)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert find_roles(model) == find_roles(pretrained(family))


@pytest.mark.parametrize("family", EXPECTED)
def test_structure_alone_agrees_with_the_table_of_families(family, monkeypatch):
    model = pretrained(family)
    known = find_roles(model)
    monkeypatch.setattr(module, "FAMILIES", {})
    assert find_roles(model) == known


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_a_head_changes_nothing(family):
    def tail(model):
        return [(name.partition(".")[2], *rest) for name, *rest in rows(find_roles(model))]

    assert tail(tiny.causal(family)) == tail(tiny.classifier(family))


@pytest.mark.parametrize("family", EXPECTED)
def test_adapters_already_there_do_not_hide_or_add_modules(family):
    before = find_roles(pretrained(family))
    wrapped = peft.get_peft_model(
        pretrained(family),
        peft.LoraConfig(r=2, target_modules=target_modules(before), fan_in_fan_out=family == "gpt2"),
    )
    adapted = {n for n, m in wrapped.get_base_model().named_modules() if hasattr(m, "get_base_layer")}
    assert adapted == set(target_modules(before))
    assert find_roles(wrapped.get_base_model()) == before
    assert [row[1:] for row in rows(find_roles(wrapped))] == [row[1:] for row in rows(before)]
