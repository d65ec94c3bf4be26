"""Anchored bases: frames with the same meaning on every model, equation (8)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import federations, tiny
from peft import get_peft_model
from safetensors.torch import load_file

import h2tune.runs.run
from h2tune import H2TuneConfig
from h2tune.adapter.export import to_lora
from h2tune.adapter.layer import H2TuneLayer
from h2tune.adapter.roles import find_roles
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.functional.frames import common_coordinates, down_frame, up_frame, view
from h2tune.runs.run import run
from h2tune.tasks.task import Example, Task
from h2tune.training import encode
from h2tune.training.readings import encode_texts, pooling, read_rows, read_texts

TASK = Task(
    "toy", "label", ("yes", "no"), (" yes", " no"), "text : {words} answer :", "none", "none", "label", 32
)
TEXTS = federations.PUBLIC
SIZE = 6


def permuted(model, seed: int = 3):
    """A twin that computes the same function with its hidden units in another order."""
    twin = tiny.causal("llama")
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(model.config.hidden_size, generator=draw)
    inner = torch.randperm(model.config.intermediate_size, generator=draw)
    state = {}
    for name, weight in model.state_dict().items():
        if "down_proj" in name:
            state[name] = weight[order][:, inner]
        elif "gate_proj" in name or "up_proj" in name:
            state[name] = weight[inner][:, order]
        elif "norm" in name or "o_proj" in name:
            state[name] = weight[order]
        else:  # embeddings, the head, and what reads the residual stream
            state[name] = weight[:, order]
    twin.load_state_dict(state)
    return twin


def anchored(model, z, *, random: int | None = None):
    """Put an anchored adapter on a model: frames from its own readings, or random ones of the same norm."""
    placements = [p.module for p in find_roles(model)]
    _, inputs, outputs = read_texts(
        model, tiny.tokenizer(side="left"), TASK, TEXTS, causal=True, modules=placements
    )
    peft = get_peft_model(model, H2TuneConfig(r=SIZE, basis="anchored"))
    for name in placements:
        down, up = down_frame(inputs[name], z), up_frame(outputs[name], z)
        if random is not None:
            draw = torch.Generator().manual_seed(random)
            noise = [torch.randn(t.shape, generator=draw) for t in (down, up)]
            down, up = (n * t.norm() / n.norm() for n, t in zip(noise, (down, up), strict=True))
        peft.get_submodule(f"base_model.model.{name}").set_frames("default", down, up)
    return peft


def set_middles(model, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, H2TuneLayer):
            module.h2tune_delta["default"].data = torch.randn(SIZE, SIZE, generator=draw) * 0.1


@torch.no_grad()
def logits(model) -> torch.Tensor:
    ids = torch.tensor([[1, 5, 9, 14, 20, 31]])
    return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.fixture(scope="module")
def twins():
    model = tiny.causal("llama")
    finals = [
        read_texts(m, tiny.tokenizer(side="left"), TASK, TEXTS, causal=True)[0]
        for m in (model, permuted(model))
    ]
    return model, common_coordinates([view(f, 16) for f in finals], SIZE)


def test_the_twin_computes_the_same_function(twins):
    assert torch.allclose(logits(permuted(twins[0])), logits(twins[0]), atol=1e-5)


def test_positive_control_a_middle_matrix_does_the_same_on_the_twin(twins):
    """What T does to a model it does to its permuted twin, untrained, in anchored frames; not in random ones."""
    _, z = twins
    plain = logits(tiny.causal("llama"))
    effects = []
    for model in (anchored(tiny.causal("llama"), z), anchored(permuted(tiny.causal("llama")), z)):
        set_middles(model)
        effects.append(logits(model) - plain)
    assert float(effects[0].norm()) > 0.1
    assert float((effects[0] - effects[1]).norm()) < 0.01 * float(effects[0].norm())
    stranger = anchored(permuted(tiny.causal("llama")), z, random=5)
    set_middles(stranger)
    effect = logits(stranger) - plain
    cosine = float((effect * effects[0]).sum() / (effect.norm() * effects[0].norm()))
    assert abs(cosine) < 0.5


def test_an_anchored_adapter_starts_as_the_base_model_and_exports_exactly(twins):
    model = anchored(tiny.causal("llama"), twins[1])
    assert torch.equal(logits(model), logits(tiny.causal("llama")))
    set_middles(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "h2tune_up" in name:
                parameter.add_(0.1)
    changed = logits(model)
    config, tensors = to_lora(model)
    assert config.r == 2 * SIZE
    lora = get_peft_model(tiny.causal("llama"), config)
    lora.load_state_dict(
        {n.replace(".weight", ".default.weight"): t for n, t in tensors.items()}, strict=False
    )
    assert torch.allclose(logits(lora), changed, atol=1e-5)
    model.merge_adapter()
    assert torch.allclose(logits(model), changed, atol=1e-5)


def test_where_no_middle_matrix_learned_anything_the_frames_are_not_exported(twins):
    model = anchored(tiny.causal("llama"), twins[1])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "h2tune_up" in name:
                parameter.add_(0.1)
    config, tensors = to_lora(model)
    assert config.r == SIZE and {t.shape[0] for n, t in tensors.items() if "lora_A" in n} == {SIZE}
    lora = get_peft_model(tiny.causal("llama"), config)
    lora.load_state_dict(
        {n.replace(".weight", ".default.weight"): t for n, t in tensors.items()}, strict=False
    )
    assert torch.allclose(logits(lora), logits(model), atol=1e-5)


def test_coordinates_do_not_depend_on_the_order_of_the_views():
    draw = torch.Generator().manual_seed(0)
    readings = [torch.randn(40, 12, generator=draw) for _ in range(3)]
    views = [view(r, 8) for r in readings]
    one, other = common_coordinates(views, 4), common_coordinates(views[::-1], 4)
    assert torch.allclose(one, other, atol=1e-4)
    assert torch.allclose(one.T @ one / 40, torch.eye(4), atol=1e-4)


def test_down_frames_ignore_the_mean_of_the_inputs():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 7, generator=draw) + 3
    frame = down_frame(inputs, torch.randn(50, 3, generator=draw))
    assert torch.allclose(frame @ inputs.mean(0), torch.zeros(3), atol=1e-4)


def test_a_federation_on_an_anchored_basis_runs_agrees_once_and_resumes(tmp_path):
    content = federations.on_anchored_basis(tmp_path, rounds=2)
    content["experimental"]["alone"] = True
    federation = parse(content, "test", tmp_path)
    first = run(federation, out=tmp_path / "run", strict=True)
    agreed = [e for e in first.events if e["event"] == "basis_agreed"]
    assert [e["client"] for e in agreed] == ["one", "two"]
    assert all(e["bytes_up"] == sum(s["bytes"] for s in e["sent"]) > 0 for e in agreed)
    again = run(federation, out=tmp_path / "run", strict=True, resume=True)
    assert federations.comparable(first.events) == federations.comparable(again.events)
    client = tmp_path / "run" / "clients" / "one"
    assert (client / "lora" / "adapter_config.json").exists()
    exported = load_file(client / "adapter" / "adapter_model.safetensors")
    frames = load_file(client / "frames" / "frames.safetensors")
    kept = load_file(client / "state" / "round-0001" / "private.safetensors")
    name = next(name.removesuffix(".down") for name in frames if name.endswith(".down"))
    assert torch.equal(exported[f"base_model.model.{name}.h2tune_frame_down"], frames[f"{name}.down"])
    assert not any("frame" in name for name in kept)  # they are stored once


def test_frames_that_were_altered_in_a_run_are_refused(tmp_path, monkeypatch):
    from h2tune.federation import local_engine

    federation = parse(federations.on_anchored_basis(tmp_path, rounds=2, min_clients=1), "test", tmp_path)
    train = local_engine.ClientRound.run

    def altered(work, base, tokenizer):
        outcome = train(work, base, tokenizer)
        file = tmp_path / "run" / "clients" / "one" / "frames" / "frames.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + b"abcd")
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(local_engine.ClientRound, "run", altered)
        with pytest.raises(H2TuneError, match=r"client 'one' were altered .* Start the run again"):
            run(federation, out=tmp_path / "run")
    finished = run(federation, out=tmp_path / "run", resume=True)  # computes them again
    (failed,) = [e for e in finished.events if e["event"] == "client_failed"]
    assert failed["client"] == "one" and failed["round"] == 1 and "were altered" in failed["reason"]
    assert (finished.folder / "clients" / "one" / "lora" / "adapter_config.json").exists()


def test_a_model_reads_the_texts_once_if_memory_allows_with_the_same_frames(tmp_path, monkeypatch):
    from h2tune.federation.h2tune import model_reader

    content = federations.on_anchored_basis(tmp_path, rounds=1)
    content["client"].append(content["client"][0] | {"name": "third"})  # same model and prompt as the first
    federation, read = parse(content, "test", tmp_path), []

    def counted(*args, **options):
        read.append(len(options["modules"]))
        return read_rows(*args, **options)

    monkeypatch.setattr(model_reader, "read_rows", counted)
    for folder, room, times in (("ample", model_reader.ROOM, 2), ("none", 0, 3 + 2)):
        monkeypatch.setattr(h2tune.runs.run, "ROOM", room)
        run(federation, out=tmp_path / folder, strict=True)
        assert len(read) == times
        read.clear()
    frames = [
        load_file(tmp_path / folder / "clients" / name / "frames" / "frames.safetensors")
        for folder in ("ample", "none")
        for name in ("one", "third")
    ]
    assert all(torch.equal(frame, other[name]) for other in frames for name, frame in frames[0].items())


def test_texts_are_cut_as_a_client_s_own():
    """All in one call, without looking at how much is cut off."""
    task, tokenizer = replace(TASK, max_length=9), tiny.tokenizer()
    texts = [*TEXTS, TEXTS[0] * 5, ""]
    rows = encode_texts(tokenizer, task, texts, causal=False)
    own = encode.encode_texts(task, [Example("", "", None, text, ()) for text in texts], tokenizer)
    assert [row.prompt for row in rows] == [row.prompt for row in own]
    assert {len(row.prompt) for row in rows} >= {9}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mean_over_all_tokens_is_the_mean_under_their_mask(dtype):
    """To the bit; there, states are not multiplied by ones."""
    states, mask = (
        torch.randn(5, 33, 70, generator=torch.Generator().manual_seed(0)).to(dtype),
        torch.ones(5, 33),
    )
    masked = (states.float() * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    assert torch.equal(pooling(mask, causal=False)(states), masked)


@pytest.mark.parametrize("causal", [True, False])
def test_a_reading_keeps_no_more_than_its_pooled_states(causal):
    """A tensor view would keep the states of all tokens of all modules in memory: gigabytes."""
    pooled = pooling(torch.ones(3, 50), causal=causal)(torch.zeros(3, 50, 7))
    assert pooled.untyped_storage().nbytes() == 3 * 7 * 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_module_that_is_the_same_for_all_texts_is_no_warning(tmp_path, dtype):
    """A decoder's first attention reads the template's last token, whatever the text: its T has no gradient."""
    content = federations.on_anchored_basis(tmp_path, rounds=1)
    for client in content["client"]:
        client["dtype"] = dtype
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", strict=True)
    trained = [e for e in run.events if e["event"] == "client_trained"]
    assert trained and all(e["without_gradient"] == [] for e in trained)
    frames = load_file(run.folder / "clients/one/frames/frames.safetensors")
    sizes = {name: float(t.float().norm()) for name, t in frames.items() if name.endswith(".up")}
    idle = [name for name, size in sizes.items() if size < 1e-6]
    assert sorted(idle) == [f"model.layers.0.self_attn.{p}_proj.up" for p in ("k", "q", "v")]


def test_noise_of_rounding_is_no_gradient():
    from helpers.locally import adapted, download, train

    one = adapted("llama")
    one.receive(download(one, 0))
    name, parameter = next(
        (n, p) for n, p in one.phases()["specific"].items() if ".lora_A." in n or "h2tune_down" in n
    )
    handle = parameter.register_hook(lambda gradient: gradient * 1e-20)
    record = train(one, 0, steps=3)
    handle.remove()
    assert name in record.without_gradient
