"""The adapted model of every baseline on tiny models, without a trainer: training changes the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from helpers.strategies import aggregate
from peft import PeftModel, get_peft_model
from torch import Tensor

from h2tune import baselines
from h2tune.adapter import H2TuneConfig
from h2tune.adapter.export import save_adapter
from h2tune.adapter.roles import depth, find_roles
from h2tune.baselines import pruning
from h2tune.baselines.lora import LoraAdaptedModel, initial_down
from h2tune.errors import H2TuneError
from h2tune.federation.messages import Download, Enrolment, Update, check_update, digest, spec_of
from h2tune.heads import head_modules
from h2tune.models import base_seed

SHARING = tuple(name for name in baselines.MODULES if name not in baselines.UNSHARED)
IDS = torch.tensor([[1, 5, 9, 7], [1, 8, 3, 4]])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def enrolment(base: Any, name: str, model: str, rank: int = 2) -> Enrolment:
    placements = find_roles(base)
    roles: dict[str, tuple[int, ...]] = {}
    for p in placements:
        roles[p.role] = (*roles.get(p.role, ()), p.block)
    modules = {p.module: (p.d_in, p.d_out) for p in placements}
    return Enrolment(name, model, depth(placements), rank, 1, roles, modules)


def build(name: str, *clients: Enrolment, dropout: float = 0.0) -> Any:
    return baselines.build(
        name, clients, shared_rank=8, alpha=4.0, dropout=dropout, weighting="examples", seed=0
    )


def attach(strategy: Any, base: Any, client: str) -> Any:
    enrolled = strategy.enrolments[client]
    heads = head_modules(base) if "Classification" in type(base).__name__ else []
    return strategy.attach(base, enrolled, heads=heads, seed=base_seed(0, enrolled.model))


@torch.no_grad()
def train(adapted: Any, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in adapted.phases()["specific"].values():
        parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.1)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(input_ids=IDS).logits


def kinds(name: str, client: str) -> set[str]:
    """Return the kinds of tensors that a client trains; in co-lora all blocks of c, of another model, have P and q."""
    both, small = {"lora_A", "lora_B"}, {"middle", "offset"}
    if name == "co-lora":
        return small if client == "c" else both | small
    return both if client == "c" else {"ffa-lora": {"lora_B"}, "fed-sb": {"middle"}}.get(name, both)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_starts_as_in_h2tune_whatever_the_rank_and_global_randomness_is_untouched() -> None:
    base = tiny.causal("llama")
    enrolled = enrolment(base, "a", "m", rank=3)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    adapted = attach(build("local", enrolled), base, "a")
    assert torch.equal(before, torch.get_rng_state())
    own = copies(adapted.parameters())
    adapted.detach()
    seed = base_seed(0, "m")
    config = H2TuneConfig(r=3, shared_rank=4, target_modules=list(enrolled.modules), init_seed=seed)
    model = get_peft_model(base, config)
    for module, (width, _) in enrolled.modules.items():
        down = model.base_model.model.get_submodule(module).h2tune_down["default"]
        assert torch.equal(own[f"{module}.lora_A"], down)
        assert torch.equal(initial_down(seed, module, 8, width)[:3], down)
        assert not own[f"{module}.lora_B"].any()


@pytest.mark.parametrize("name", SHARING)
def test_rounds_of_every_method(name: str) -> None:
    """Three rounds of two equal models and one encoder: messages, digests, states, and bases that stay as they were."""
    bases = {"a": tiny.causal("llama"), "c": tiny.classifier("roberta", blocks=1)}
    bases["b"] = bases["a"]  # in memory once, as in the engine
    weights = {client: copies(base.state_dict()) for client, base in bases.items()}
    clients = [enrolment(bases[c], c, "encoder" if c == "c" else "decoder") for c in "abc"]
    strategy = build(name, *clients)
    together = "abc" if name == "co-lora" else "ab"
    state, kept = strategy.start(), {}
    for number in range(3):
        updates = []
        for client in "abc":
            adapted = attach(strategy, bases[client], client)
            if client in kept:
                adapted.load_state(kept[client])
            download = strategy.download(state, client, number)
            adapted.receive(download)
            assert adapted.loaded_digest() == download.digest
            assert spec_of(download.tensors) == strategy.download_spec(client, number)
            trained = adapted.phases()["specific"]
            assert {n.rpartition(".")[2] for n in trained if ".modules_to_save." not in n} == kinds(
                name, client
            )
            free = {id(p) for p in adapted.model.parameters() if p.requires_grad}
            assert free == {id(p) for p in trained.values()}
            fixed = copies(adapted.model.state_dict())
            train(adapted, seed=10 * number + ord(client))
            moved = {n for n, p in adapted.model.state_dict().items() if not torch.equal(p, fixed[n])}
            assert len(moved) == len(trained)
            sent = adapted.send()
            update = Update(client, number, 1, sent)
            check_update(
                update, strategy.upload_spec(client, number), client=client, round_number=number, examples=1
            )
            learned = adapted.learned()
            assert (learned.keys() == sent.keys() - {"rank"}) and all(
                torch.equal(t, sent[n]) for n, t in learned.items()
            )
            assert bool(sent) == (client in together)
            kept[client] = adapted.state()
            updates.append(update)
            assert adapted.detach() is bases[client]
            assert not hasattr(bases[client], "peft_config")
            assert same(bases[client].state_dict(), weights[client])
        state, _ = aggregate(strategy, state, updates)


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.filterwarnings(
    "ignore:Adapter 'default'"
)  # PEFT 0.21 takes the bias that lora_bias asks for as a fault
@pytest.mark.filterwarnings("ignore:`lora_bias=True`")
def test_what_is_exported_is_a_plain_lora_that_does_the_same(name: str, tmp_path: Path) -> None:
    base = tiny.causal("gpt2")
    strategy = build(name, enrolment(base, "a", "m"), enrolment(base, "b", "m"), dropout=0.5)
    state, kept = strategy.start(), {}
    for number in range(3):
        updates = []
        for client in "ab":
            adapted = attach(strategy, base, client)
            if number:
                adapted.load_state(kept[client])
            adapted.receive(strategy.download(state, client, number))
            train(adapted, seed=10 * number + ord(client))
            updates.append(Update(client, number, 1, adapted.send()))
            kept[client] = adapted.state()
            after = logits(adapted.model)
            adapted.detach()
        state, _ = aggregate(strategy, state, updates)
    adapted = attach(strategy, base, "b")
    adapted.load_state(kept["b"])
    torch.testing.assert_close(logits(adapted.model), after, rtol=1e-4, atol=1e-5)
    save_adapter(adapted.model, tmp_path / "lora")
    adapted.detach()
    assert not torch.allclose(logits(base), after, atol=1e-3)
    loaded = PeftModel.from_pretrained(base, tmp_path / "lora")
    assert loaded.peft_config["default"].peft_type.value == "LORA"
    torch.testing.assert_close(logits(loaded), after, rtol=1e-4, atol=1e-5)


def test_flora_starts_each_round_from_the_exact_sum_of_all_updates() -> None:
    base = tiny.causal("llama")
    strategy = build("flora", enrolment(base, "a", "m", rank=2), enrolment(base, "b", "m", rank=4))
    state, dense = strategy.start(), dict.fromkeys(strategy.enrolments["a"].modules, 0.0)
    kept: dict[str, Any] = {}
    for number in range(3):
        updates = []
        for client in "ab":
            adapted = attach(strategy, base, client)
            if number:
                adapted.load_state(kept[client])
            adapted.receive(strategy.download(state, client, number))
            started = logits(adapted.model)
            for key, parameter in adapted.parameters().items():  # fresh, and able to learn
                module, fresh = key.removesuffix(".lora_A"), (number,) if number else ()
                start = initial_down(base_seed(0, "m"), module, *parameter.shape, *fresh)
                assert torch.equal(
                    parameter, start if key.endswith("lora_A") else torch.zeros_like(parameter)
                )
            train(adapted, seed=10 * number + ord(client))
            updates.append(Update(client, number, 1, adapted.send()))
            kept[client] = adapted.state()
            adapted.detach()
        weights = copies(base.state_dict())
        with torch.no_grad():
            for module, change in dense.items():
                base.get_submodule(module).weight += change
            torch.testing.assert_close(started, logits(base), rtol=1e-4, atol=1e-5)
            base.load_state_dict(weights)
        for module in dense:
            for u in updates:
                scale = 4.0 / strategy.enrolments[u.client].rank
                dense[module] += 0.5 * scale * u.tensors[f"{module}.lora_B"] @ u.tensors[f"{module}.lora_A"]
        state, _ = aggregate(strategy, state, updates)
    with pytest.raises(H2TuneError, match="lacks"):
        attach(strategy, base, "a").receive(strategy.download(state, "a", 3))


def test_hetlora_penalises_and_prunes_its_last_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "DECAY", 0.6)
    monkeypatch.setattr(pruning, "PENALTY", 0.5)
    base = tiny.causal("llama", blocks=1)
    strategy = build("hetlora", enrolment(base, "a", "m", rank=5), enrolment(base, "b", "m", rank=2))
    adapted = attach(strategy, base, "a")
    train(adapted, seed=1)  # B is not zero, as after a round
    state = adapted.parameters()
    penalty = 0.5 * sum(
        state[f"{m}.lora_A"][3:5].norm() * state[f"{m}.lora_B"][:, 3:5].norm() for m in adapted.layers
    )
    names, parameters = zip(*state.items(), strict=True)
    plain = torch.autograd.grad(adapted.model(input_ids=IDS, labels=IDS).loss, parameters)
    expected = torch.autograd.grad(adapted.model(input_ids=IDS, labels=IDS).loss + penalty, parameters)
    held = copies(state)
    adapted.receive(Download(1, held, digest(held)))  # from here on with hooks
    for part in (0.25, 0.75):  # two micro-batches
        (part * adapted.model(input_ids=IDS, labels=IDS).loss).backward()
    for name, p, with_penalty, without in zip(names, parameters, expected, plain, strict=True):
        torch.testing.assert_close(p.grad, with_penalty, rtol=1e-4, atol=1e-6, msg=name)
        assert not torch.allclose(with_penalty, without)

    assert adapted.next_rank() == 5 and int(adapted.send()["rank"]) == 5
    with torch.no_grad():
        for module in adapted.layers:
            state[f"{module}.lora_B"][:, 3:5] *= 0.9
    sent, kept = adapted.send(), adapted.state()
    assert int(sent["rank"]) == 3 == int(kept["rank"])
    for module in adapted.layers:
        assert not sent[f"{module}.lora_A"][3:].any() and not sent[f"{module}.lora_B"][:, 3:].any()
        assert sent[f"{module}.lora_A"][:3].any() and state[f"{module}.lora_A"][3:].any()
    adapted.detach()
    again = attach(strategy, base, "a")
    again.load_state(kept)
    assert again.rank == 3
    again.detach()


def test_private_state_is_strict() -> None:
    base = tiny.causal("llama", blocks=1)
    strategy = build("fedit", enrolment(base, "a", "m"), enrolment(base, "b", "m"))
    adapted = attach(strategy, base, "a")
    state = adapted.state()
    name = next(iter(state))
    with pytest.raises(H2TuneError, match="missing"):
        adapted.load_state({n: t for n, t in state.items() if n != name})
    with pytest.raises(H2TuneError, match="expected"):
        adapted.load_state(state | {name: state[name][:1]})
    with pytest.raises(H2TuneError, match="unexpected"):
        adapted.receive(Download(1, adapted.send() | {"extra": torch.zeros(1)}, ""))


def test_co_lora_frames_are_orthonormal_and_only_its_last_blocks_are_shared() -> None:
    base = tiny.causal("llama", blocks=6)
    other = tiny.causal("qwen3", blocks=2, width=48)
    strategy = build("co-lora", enrolment(base, "a", "m", rank=3), enrolment(other, "b", "n", rank=3))
    adapted = attach(strategy, base, "a")
    assert isinstance(adapted, LoraAdaptedModel)
    assert {module.split(".")[2] for module in adapted.stems} == {"2", "5"}
    eye = torch.eye(3)
    for module in adapted.stems:
        layer = adapted.layers[module]
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.testing.assert_close(down @ down.T, eye, atol=1e-5, rtol=0)
        torch.testing.assert_close(up.T @ up, eye, atol=1e-5, rtol=0)
    adapted.detach()
