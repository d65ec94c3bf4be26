"""Sixteen families in one federation: each attaches, trains in both phases, saves, exports; all of them share."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.strategies import h2tune

from h2tune.adapter.export import save_lora
from h2tune.adapter.roles import depth, find_roles
from h2tune.federation.attach import attach_adapter
from h2tune.federation.local_client import LocalClient
from h2tune.federation.local_engine import LocalEngine
from h2tune.federation.messages import Enrolment
from h2tune.federation.rounds import Schedule, run_rounds
from h2tune.federation.run_store import RunStore
from h2tune.tasks.task import Example, Splits, Task
from h2tune.training.local import LocalTraining

TASK = Task(
    "toy", "label", ("yes", "no"), (" yes", " no"), "text : {words} answer :", "none", "none", "label", 32
)
EXAMPLES = tuple(
    Example(f"text : {word} {filler} answer :", answer, label, f"{word} {filler}")
    for filler in ("film", "book", "game", "plot")
    for word, answer, label in (("good", " yes", 0), ("bad", " no", 1))
)


class TinyModels:
    """Returns a new tiny model of the family that a client names."""

    def get(self, model, kind, dtype):
        base = tiny.causal(model) if kind == "causal" else tiny.classifier(model, labels=2)
        return base, tiny.tokenizer()


def client_of(family: str, number: int) -> LocalClient:
    kind = "classifier" if family in tiny.ENCODERS else "causal"
    base = TinyModels().get(family, kind, "float32")[0]
    placements = find_roles(base)
    roles: dict[str, list[int]] = {}
    for placement in placements:
        roles.setdefault(placement.role, []).append(placement.block)
    enrolment = Enrolment(
        name=family,
        model=family,
        depth=depth(placements),
        rank=2 + number % 3,
        examples=len(EXAMPLES),
        roles={role: tuple(sorted(blocks)) for role, blocks in roles.items()},
        modules={p.module: (p.d_in, p.d_out) for p in placements},
    )
    rates = {"specific": 1e-2, "shared": 1e-2, "relation": 1e-2}
    training = LocalTraining("step", 2, 2, 4, 1, rates, 0.0, "constant", 0, 1.0, {})
    return LocalClient(enrolment, kind, TASK, Splits(EXAMPLES, (), EXAMPLES), training, "test", 8, 0)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    clients = [client_of(family, i) for i, family in enumerate(sorted(tiny.FAMILIES))]
    strategy = h2tune(
        [m.enrolment for m in clients], shared_rank=4, slots=3, size_weight=1e-4, drift_weight=0.1,
        distillation_weight=0.1, alternation="step",
    )  # fmt: skip
    store = RunStore(folder / "run")
    engine = LocalEngine(clients, dict.fromkeys(tiny.FAMILIES, "float32"), strategy, TinyModels(), store)
    events: list[dict] = []
    state = run_rounds(
        strategy, engine, store, Schedule(2, 16, lambda *_: sorted(tiny.FAMILIES), strict=True), events.append,
    )  # fmt: skip
    yield clients, strategy, engine, state, events
    store.close()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_family_takes_part(federation, family, tmp_path):
    clients, strategy, engine, state, events = federation
    trained = [e for e in events if e["event"] == "client_trained" and e["client"] == family]
    assert [e["round"] for e in trained] == [0, 1]
    assert all(distance > 0 for distance in trained[1]["moved"].values())
    assert {step["phase"] for step in trained[1]["losses"]} == {"shared", "specific"}
    # its own roles were changed by it, and what it keeps can be exported
    assert all(
        float(state["shared"][:, strategy.roles.index(role)].norm()) > 0
        for role in strategy.codec.roles_of(family)
    )
    one = next(m for m in clients if m.name == family)
    base, _ = TinyModels().get(family, one.kind, "float32")
    adapted = attach_adapter(base, one, strategy, engine.last_state(family, 2))
    save_lora(adapted.model, tmp_path / "lora")
    assert (tmp_path / "lora" / "adapter_model.safetensors").exists()


def test_the_federation_shares_all_roles_and_aggregates_all_clients(federation):
    _, strategy, _, state, events = federation
    assert set(strategy.roles) >= {"attn.q", "attn.qkv", "attn.o", "mlp.gate_up", "mlp.up", "mlp.down"}
    assert [len(e["clients"]) for e in events if e["event"] == "aggregated"] == [16, 16]
    assert bool(torch.isfinite(state["shared"]).all())
