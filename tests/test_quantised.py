"""A 4-bit base model: only its linear layers are quantised, adapters are trained, and merging is refused."""

from __future__ import annotations

import peft
import pytest
import torch
from helpers import federations, tiny

from h2tune.config import parse
from h2tune.models import load_model
from h2tune.runs.inspect import inspect

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install 'h2tune[quantized]'")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(params=["llama", "bert"])
def loaded(request, tmp_path):
    """A tiny model in 4 bits, and whether it is a decoder."""
    kind = "causal" if request.param == "llama" else "classifier"
    folder = tiny.save_model_folder(tmp_path / "m", request.param, labels=2, width=64, blocks=2)
    return load_model(str(folder), kind, "nf4", 0), kind == "causal"


def test_linear_layers_are_in_4_bits_and_heads_are_not(loaded):
    model, causal = loaded
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    plain = {name for name, kind in kinds.items() if kind is torch.nn.Linear}
    assert plain == ({"lm_head"} if causal else {"classifier", "bert.pooler.dense"})
    assert {kinds[name] for name in kinds.keys() - plain} == {bitsandbytes.nn.Linear4bit}


def test_a_run_trains_and_saves_ordinary_adapters_beside_it(tmp_path):
    import h2tune

    content = federations.federation(tmp_path, options={f: {"width": 64} for f in ("llama", "bert")})
    for client in content["client"]:
        client["dtype"] = "nf4"
    run = h2tune.run(parse(content, "t", tmp_path), out=tmp_path / "run", strict=True)
    moved = [e["moved"] for e in run.events if e["event"] == "client_trained"]
    assert moved and all(m["up"] > 0 for m in moved)
    base = load_model(content["client"][0]["model"], "causal", "nf4", 0)
    model = peft.PeftModel.from_pretrained(base, run.folder / "clients" / "one" / "lora").eval()
    tokens = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        with model.disable_adapter():
            before = model(tokens).logits
        assert not torch.allclose(model(tokens).logits, before)


def test_scoring_leaves_the_weights_as_they_are(loaded):
    """On some CPUs bitsandbytes would repack them, with other scales when training continues."""
    model, _ = loaded
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.eval()(torch.tensor([[1, 5, 6]]))
        model.train()(torch.tensor([[1, 5, 6]]))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_merging_into_it_is_refused(loaded):
    from h2tune.adapter import H2TuneConfig

    model = peft.get_peft_model(loaded[0], H2TuneConfig(r=2, shared_rank=4))
    with pytest.raises(ValueError, match="quantised"):
        model.merge_and_unload()


def test_inspect_counts_its_bytes(tmp_path):
    content = federations.federation(tmp_path, options={"llama": {"width": 64}, "bert": {"width": 64}})
    plain = inspect(parse(content, "t", tmp_path)).clients[0]
    content["client"][0]["dtype"] = "nf4"
    small = inspect(parse(content, "t", tmp_path)).clients[0]
    model = load_model(content["client"][0]["model"], "causal", "nf4", 0)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    scales = sum(
        m.weight.quant_state.absmax.numel() * 4 for m in model.modules() if hasattr(m, "quant_state")
    )
    saved = plain["memory_bytes"] - small["memory_bytes"]
    assert plain["base_parameters"] * 4 - saved == pytest.approx(held + scales, rel=0.01)
