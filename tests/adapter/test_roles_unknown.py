"""The roles of modules in unknown families: by name, by shape, as stated, or refused."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from helpers import federations, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    T5EncoderModel,
)

from h2tune.adapter.families import ANYWHERE
from h2tune.adapter.roles import ROLES, depth, find_roles
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.runs.model_info import client_info


def tower(layers, blocks=2, stack="body.blocks", model_type="odd", **config):
    """A model of one stack of blocks; `layers` maps paths to (d_in, d_out). It is on the meta device."""
    root = nn.Module()
    with torch.device("meta"):
        root.embed = nn.Embedding(8, 32)
        for index in range(blocks):
            for path, widths in layers.items():
                add(
                    root,
                    f"{stack}.{index}.{path}",
                    nn.Linear(*widths) if isinstance(widths, tuple) else widths,
                )
        root.lm_head = nn.Linear(32, 8)
    root.config = SimpleNamespace(model_type=model_type, **config)
    return root


def add(root, name, leaf):
    *parents, last = name.split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(last, leaf)


def placed(model, overrides=None):
    """Path within block 0 → role."""
    return {p.module.partition(".0.")[2]: p.role for p in find_roles(model, overrides) if p.block == 0}


ODD = {
    "pre_attention.wq": (32, 32), "pre_attention.wk": (32, 8), "pre_attention.wv": (32, 8),
    "pre_attention.wo": (32, 32), "feed_forward.w1": (32, 40), "feed_forward.w2": (40, 32), "feed_forward.w3": (32, 40),
}  # fmt: skip
SEPARATE = {"attn.q": (32, 32), "attn.k": (32, 8), "attn.v": (32, 8), "attn.o": (32, 32)}
MLP_GATED = {"w1": (32, 40), "w2": (40, 32), "w3": (32, 40)}
MLP = {"mlp.fc1": (32, 40), "mlp.fc2": (40, 32)}


def test_an_unknown_family_by_names():
    model = tower(ODD, blocks=12)
    assert placed(model) == dict(
        zip(ODD, ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.down", "mlp.up"], strict=True)
    )
    assert depth(find_roles(model)) == 12
    assert [p.block for p in find_roles(model)] == sorted([*range(12)] * 7)  # 10 comes after 9, not after 1
    del model.config
    assert len(find_roles(model)) == 12 * 7


def test_w1_without_w3_goes_up():
    assert placed(tower(SEPARATE | {"ff.w1": (32, 40), "ff.w2": (40, 32)}))["ff.w1"] == "mlp.up"


@pytest.mark.parametrize(("inner", "up"), [(40, "mlp.up"), (80, "mlp.gate_up")])
@pytest.mark.parametrize("names", [("net.0", "net.2"), ("expand", "contract"), ("wi", "wo")])
def test_what_has_no_known_name_by_shape(names, inner, up):
    first, last = (f"chew.{name}" for name in names)
    layers = {last: (40, 32), first: (32, inner), "attn.inlet": (32, 64), "attn.outlet": (32, 32)}
    assert placed(tower(layers)) == {
        "attn.inlet": "attn.qkv", "attn.outlet": "attn.o", first: up, last: "mlp.down"
    }  # fmt: skip


def test_a_model_that_is_its_own_list_of_blocks():
    block = nn.Sequential()
    for path, widths in (SEPARATE | MLP).items():
        add(block, path, nn.Linear(*widths, device="meta"))
    found = find_roles(nn.Sequential(nn.Embedding(2, 32, device="meta"), block))
    assert (found[0].module, found[0].block) == ("1.attn.q", 1)
    assert depth(found) == 2


@pytest.mark.parametrize(
    "layers",
    [
        SEPARATE | {"mlp.a": (32, 40), "mlp.b": (32, 40), "mlp.c": (40, 32)},  # which of a and b is the gate?
        SEPARATE | MLP | {"attn.lora_like": (32, 4)},
        SEPARATE | MLP | {"cross.q_proj": (32, 32)},
        SEPARATE | MLP | {"extra.first": (32, 64), "extra.last": (64, 32)},  # the block has an MLP already
        {"attn.first": (32, 40), "attn.last": (64, 32)} | MLP,
        SEPARATE | {"mlp.fc1": (40, 32), "mlp.fc2": (32, 40)},  # the names say one thing, the shapes another
        {"attn.qkv": (32, 24), "attn.o": (32, 32)} | MLP,
        {"attn.qkv": (32, 128), "attn.o": (32, 32)} | MLP,
        SEPARATE | {"mlp.gate_proj": (32, 40), "mlp.up_proj": (32, 80), "mlp.down_proj": (40, 32)},
    ],
)
def test_what_cannot_be_placed_is_refused_by_name_with_the_setting(layers):
    with pytest.raises(H2TuneError) as error:
        find_roles(tower(layers))
    named = [path for path in layers if f"body.blocks.*.{path} (" in error.value.message]
    assert named
    assert 'roles = { "' in error.value.remedy
    assert f'= "{named[0]}"' in error.value.remedy
    remaining = find_roles(tower(layers), {"skip": "|".join(named)})
    assert {p.module.partition(".0.")[2] for p in remaining if p.block == 0} == set(layers) - set(named)


def test_a_mixer_without_attention_beside_it_is_no_mlp():
    model = tower({"mixer.first": (32, 64), "mixer.last": (64, 32)})
    with pytest.raises(H2TuneError, match=r"no role is known for body.blocks.\*.mixer.first \(32 → 64\)"):
        find_roles(model)
    assert placed(model, {"mlp.up": "first", "mlp.down": "last"}) == {
        "mixer.first": "mlp.up", "mixer.last": "mlp.down"
    }  # fmt: skip


EXPERTS = {f"mlp.experts.{i}.{name}": widths for i in range(4) for name, widths in MLP_GATED.items()}


def test_experts_are_refused_unless_one_is_chosen():
    model = tower(SEPARATE | {"mlp.gate": (32, 4)} | EXPERTS)
    with pytest.raises(
        H2TuneError, match=r"'body.blocks.0.mlp.experts.0.w1' and '.*experts.1.w1' are both mlp.gate"
    ):
        find_roles(model)
    chosen = {"mlp.gate": "experts.0.w1", "mlp.up": "experts.0.w3", "mlp.down": r"experts\.0\.w2"}
    assert placed(model, chosen) == {path: path for path in SEPARATE} | {
        "mlp.experts.0.w1": "mlp.gate", "mlp.experts.0.w3": "mlp.up", "mlp.experts.0.w2": "mlp.down"
    }  # fmt: skip
    assert placed(model, {"skip": "mlp.*"}) == {path: path for path in SEPARATE}


@pytest.mark.parametrize("router", ["mlp.gate", "mlp.router.classifier", "router"])
def test_routers_are_left_alone(router):
    layers = SEPARATE | {router: (32, 1), "mlp.experts.0.fc1": (32, 40), "mlp.experts.0.fc2": (40, 32)}
    assert set(placed(tower(layers))) == set(layers) - {router}


def test_heads_in_a_list_are_left_alone():
    model = tower(SEPARATE | MLP)
    for stack in ("heads", "classifier", "model.embeddings", "pooler"):
        add(model, f"{stack}.0.dense", nn.Linear(32, 32, device="meta"))
    assert {p.module.partition(".0.")[0] for p in find_roles(model) if p.block == 0} == {"body.blocks"}


def test_two_stacks_are_refused_unless_one_is_pointed_to():
    model = tower(SEPARATE | MLP)
    for path, widths in (SEPARATE | MLP).items():
        add(model, f"vision.layers.0.{path}", nn.Linear(*widths, device="meta"))
    with pytest.raises(H2TuneError, match=r"several stacks of blocks: body.blocks, vision.layers"):
        find_roles(model)
    assert len(find_roles(model, {"attn.q": r"vision\.layers.*attn\.q"})) == 6
    assert {p.module.split(".")[0] for p in find_roles(model, {"skip": "vision.*"})} == {"body"}


def test_attention_that_bypasses_its_layers_is_refused():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, device="meta"), 2)
    with pytest.raises(H2TuneError, match=r"'layers.0.self_attn' is a torch.nn.MultiheadAttention"):
        find_roles(model)


def test_models_without_blocks_and_with_an_encoder_beside_the_decoder_are_refused():
    with pytest.raises(H2TuneError, match="no numbered blocks"):
        find_roles(nn.ModuleDict({"fc1": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)}))
    with torch.device("meta"):
        config = AutoConfig.for_model(
            "t5", vocab_size=8, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4
        )
        with pytest.raises(H2TuneError, match="encoder–decoder"):
            find_roles(AutoModel.from_config(config))
        assert len(find_roles(T5EncoderModel(config))) == 2 * 6
        config = tiny.config("bert", is_decoder=True, add_cross_attention=True)
        with pytest.raises(H2TuneError, match=r"encoder.layer.\*.crossattention.self.query \(32 → 32\)"):
            find_roles(AutoModel.from_config(config))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"attn.query": "my_query"}, r"no role 'attn.query' \(did you mean 'attn.q'\?\)"),
        (
            {"attn.q": "my_querry"},
            r"roles.attn.q: no linear layer .* 'my_querry' \(did you mean 'my_query'\?\)",
        ),
        ({"attn.q": "embed"}, "no linear layer in a block is called 'embed'"),
        ({"attn.q": "lm_head"}, "no linear layer in a block is called 'lm_head'"),
        ({"attn.q": "(my"}, "'\\(my' is not a valid regular expression"),
        ({"attn.q": "my_query", "attn.k": "my_.*"}, "'body.blocks.0.my_query' is already attn.q"),
        ({"attn.q": "my_.*"}, "are both attn.q"),
        ({"skip": ".*"}, "no module is left"),
        ({"attn.q": "query"}, "no linear layer in a block is called 'query'"),  # a suffix of whole words only
    ],
)
def test_a_wrong_setting_is_refused(overrides, message):
    with pytest.raises(H2TuneError, match=message):
        find_roles(tower({"my_query": (32, 32), "my_key": (32, 32)} | MLP), overrides)


def test_a_setting_places_what_could_not_be_and_replaces_what_was():
    layers = {"attn.mine": (32, 32), "attn.k": (32, 8), "attn.v": (32, 8), "attn.o": (32, 32)} | MLP
    model = tower(layers)
    with pytest.raises(H2TuneError, match=r"body.blocks.\*.attn.mine \(32 → 32\)"):
        find_roles(model)
    assert placed(model, {"attn.q": "mine"})["attn.mine"] == "attn.q"
    assert (
        placed(tower(SEPARATE | MLP | {"attn.q": (8, 7)}), {"attn.q": "q"})["attn.q"] == "attn.q"
    )  # the stated role takes precedence
    first_only = find_roles(tower(SEPARATE | MLP, blocks=3), {"attn.q": r"blocks\.0\.attn\.q"})
    assert [p.block for p in first_only if p.role == "attn.q"] == [0]
    assert [p.block for p in first_only if p.role == "attn.k"] == [0, 1, 2]


# Properties

words = st.sampled_from


@st.composite
def blocks(draw):
    """Paths → (role, widths) of a block that uses any of the known names for its layers."""
    width, inner, narrow = draw(st.permutations([16, 24, 40]))
    attention, mlp = (
        draw(words(["attn", "attention.self", "Mixed_Attention"])),
        draw(words(["mlp.", "ff.inner.", ""])),
    )
    fused, gated = draw(st.booleans()), draw(words(["plain", "gated", "fused"]))
    roles = {"attn.qkv": (width, width + 2 * min(narrow, width))} if fused else {
        "attn.q": (width, width), "attn.k": (width, narrow), "attn.v": (width, narrow)
    }  # fmt: skip
    roles |= {"attn.o": (width, width), "mlp.down": (inner, width)}
    roles |= {"mlp.gate_up": (width, 2 * inner)} if gated == "fused" else {"mlp.up": (width, inner)}
    roles |= {"mlp.gate": (width, inner)} if gated == "gated" else {}
    names = {}
    for role, widths in roles.items():
        known = [word for word in ANYWHERE[role].split() if word not in ("w3", "c_proj")]
        path = (f"{attention}." if role.startswith("attn") else mlp) + draw(words(known))
        names[path] = (role, widths)
    return names


@given(blocks(), st.integers(1, 12))
def test_any_mix_of_known_names(block, count):
    model = tower({path: widths for path, (_, widths) in block.items()}, blocks=count)
    found = find_roles(model)
    assert depth(found) == count
    assert [(p.block, ROLES.index(p.role)) for p in found] == sorted(
        (p.block, ROLES.index(p.role)) for p in found
    )
    assert {(p.module, p.role, (p.d_in, p.d_out)) for p in found} == {
        (f"body.blocks.{index}.{path}", *place) for index in range(count) for path, place in block.items()
    }


@given(blocks(), st.data())
def test_stated_roles_are_taken_whatever_the_names(block, data):
    letters = st.text("xyz", min_size=4, max_size=9).map(lambda word: f"part.{word}")
    fresh = data.draw(st.lists(letters, min_size=len(block), max_size=len(block), unique=True))
    renamed = dict(zip(fresh, block.values(), strict=True))
    found = find_roles(
        tower({name: widths for name, (_, widths) in renamed.items()}),
        {role: name.removeprefix("part.") for name, (role, _) in renamed.items()},
    )
    assert {(p.module.partition(".0.")[2], p.role) for p in found if p.block == 0} == {
        (name, role) for name, (role, _) in renamed.items()
    }


def test_a_client_that_names_roles_is_seen_and_not_taken_for_another_of_its_model(tmp_path):
    content = federations.federation(
        tmp_path, [("one", "llama", 2), ("two", "llama", 2), ("three", "llama", 2)]
    )
    content["client"][1]["roles"] = {"skip": "mlp.*"}
    clients, looks = parse(content, "test", tmp_path).client, {}
    one, two, three = (client_info(client, looks) for client in clients)
    assert one.placements == three.placements
    assert len(looks) == 2 and {p.role for p in two.placements} < {p.role for p in one.placements}
    assert [s.client.name for s in (one, two, three)] == ["one", "two", "three"]


MIXTURES = {
    "mixtral": {"num_local_experts": 2},
    "qwen2_moe": {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "olmoe": {"num_experts": 2},
    "gpt_oss": {"num_local_experts": 2},
    "jetmoe": {"num_local_experts": 2},
    "deepseek_v3": {"n_routed_experts": 2, "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1},
}


def from_type(family: str, **sizes):
    small = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 4}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(small | sizes)))


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_refused_and_not_left_out_in_silence(family):
    with pytest.raises(H2TuneError, match="weights in one, as mixtures of experts do") as caught:
        find_roles(from_type(family, **MIXTURES[family]))
    assert 'roles = { skip = "' in caught.value.remedy


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "gpt_oss"])
def test_the_rest_of_a_mixture_is_adapted_where_the_client_says_so(family):
    found = find_roles(from_type(family, **MIXTURES[family]), {"skip": "experts"})
    assert {p.role for p in found} == {"attn.q", "attn.k", "attn.v", "attn.o"}


@pytest.mark.parametrize("family", ["xlm", "flaubert"])
def test_the_remedy_for_two_stacks_works(family):
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(family, emb_dim=32, n_layers=2, n_heads=4)
        )
    with pytest.raises(H2TuneError, match="several stacks of blocks") as caught:
        find_roles(model)
    role, pattern = re.search(r"\{ \"(.*)\" = '(.*)' \}", caught.value.remedy).groups()
    assert {p.role for p in find_roles(model, {role: pattern})} == {"attn.q", "attn.k", "attn.v", "attn.o"}


def test_weights_of_attention_in_one_parameter_are_refused():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model("xlnet", d_model=32, n_layer=2, n_head=4, d_inner=32)
        )
    with pytest.raises(H2TuneError, match=r"rel_attn.q' holds 32 × 4 × 8 weights in one"):
        find_roles(model)
