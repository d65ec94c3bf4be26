"""Local training: each phase changes exactly its own parameters, and all of them."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
from helpers import tiny
from helpers.locally import adapted, download, train, trained

from h2tune.errors import H2TuneError
from h2tune.training import garbage
from h2tune.training.garbage import freeze_new_objects, garbage_collection_frozen
from h2tune.training.trainer import AlternatingTrainer


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_each_phase_changes_exactly_its_own_parameters_and_all_of_them(family, monkeypatch):
    one = adapted(family)
    causal = family not in tiny.ENCODERS
    one.receive(download(one, 0))
    train(one, 0, causal=causal)
    one.receive(download(one, 1))
    seen = []
    original = AlternatingTrainer.training_step

    def spy(self, model, inputs, *args, **kwargs):
        seen.append((self.phase(), trained(one)))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AlternatingTrainer, "training_step", spy)
    frozen = {n: p.detach().clone() for n, p in one.model.named_parameters() if n not in trained(one)}
    train(one, 1, steps=1, causal=causal)
    seen.append(("end", trained(one)))
    assert [phase for phase, _ in seen] == ["shared", "specific", "end"]
    shared, specific = one.phases()["shared"], one.phases()["specific"]
    assert shared and specific and not shared.keys() & specific.keys()
    for (phase, before), (_, after) in itertools.pairwise(seen):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == set(shared if phase == "shared" else specific), phase
    assert all(torch.equal(p, frozen[n]) for n, p in one.model.named_parameters() if n in frozen)


def test_scores_and_relation_receive_gradients_from_the_task_loss_alone():
    one = adapted(weights=(0.0, 0.0, 0.0))
    one.receive(download(one, 0))
    train(one, 0)
    one.receive(download(one, 1))
    record = train(one, 1)
    assert record.without_gradient == set()


def test_the_first_round_trains_all_jointly_and_the_relation_alone_gets_no_gradient():
    one = adapted(weights=(0.0, 0.0, 0.0))
    one.receive(download(one, 0))
    record = train(one, 0, steps=4)
    assert {phase for phase, _ in record.losses} == {"joint"}
    assert record.without_gradient == {"relation.logits"}  # M is zero: there is nothing to mix


def test_accumulation_is_the_same_as_a_larger_batch():
    results = []
    for accumulation in (1, 2, 4):
        one = adapted()
        for round_number in (0, 1):
            one.receive(download(one, round_number))
            # plain gradient steps: Adam would turn rounding in a gradient that is nearly zero into a whole step
            train(one, round_number, accumulation=accumulation, arguments={"optim": "sgd"}, max_grad_norm=0.5)
        results.append(trained(one))
    for other in results[1:]:
        for name, tensor in results[0].items():
            assert torch.allclose(tensor, other[name], atol=1e-6), name


def test_no_training_sends_zeros_to_the_bit():
    one = adapted()
    one.receive(download(one, 1))
    sent = one.send()
    assert all(not bool(sent[name].any()) for name in sent if name.startswith("delta."))


def test_what_is_sent_is_what_was_learned():
    one = adapted()
    one.receive(download(one, 0))
    train(one, 0)
    sent, learned = one.send(), one.learned()
    assert learned.keys() == {name for name in sent if name.startswith("delta.")}
    assert all(torch.equal(sent[name], learned[name]) and bool(learned[name].any()) for name in learned)


def test_distillation_starts_from_zero_and_needs_steps_between_the_phases():
    """With no step between them both phases give the same output; with steps they differ (equation 7)."""
    one = adapted(weights=(0.0, 0.0, 100.0))
    one.receive(download(one, 0))
    train(one, 0)
    one.receive(download(one, 1))
    with_term = [loss for phase, loss in train(one, 1, steps=1).losses if phase == "specific"]
    two = adapted(weights=(0.0, 0.0, 0.0))
    two.receive(download(two, 0))
    train(two, 0)
    two.receive(download(two, 1))
    without = [loss for phase, loss in train(two, 1, steps=1).losses if phase == "specific"]
    assert with_term[0] > without[0] + 1e-4


def test_a_loss_that_is_not_finite_stops_the_client():
    one = adapted()
    one.receive(download(one, 0))
    with torch.no_grad():
        one.phases()["specific"][next(iter(one.phases()["specific"]))].fill_(float("nan"))
    with pytest.raises(H2TuneError, match="loss became nan"):
        train(one, 0)


def test_training_leaves_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = adapted(dropout=0.2)
    one.receive(download(one, 0))
    train(one, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", ["llama", "bert", "roberta"])
def test_the_base_model_comes_back_as_it_was(family):
    one = adapted(family)
    before = {
        n: t.clone()
        for n, t in one.base.state_dict().items()
        if "h2tune_" not in n and "modules_to_" not in n
    }
    before = {n.replace(".base_layer", "").replace(".original_module", ""): t for n, t in before.items()}
    one.receive(download(one, 0))
    train(one, 0, causal=family == "llama")
    after = one.detach().state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


def test_private_state_comes_back_and_strangers_are_refused():
    one, two = adapted(), adapted()
    for p in (one, two):
        p.receive(download(p, 0))
    train(one, 0)
    state = one.state()
    two.load_state(state)
    assert all(torch.equal(t, two.state()[n]) for n, t in state.items())
    name = next(n for n in state if "h2tune_up" in n)
    for broken, message in (
        ({n: t for n, t in state.items() if n != name}, "missing"),
        ({**state, name: state[name][:1]}, "expected"),
        ({**state, "stranger": state[name]}, "unexpected"),
    ):
        with pytest.raises(H2TuneError, match=message):
            two.load_state(broken)


@pytest.mark.parametrize("changes", [{"rank": 5}, {"mask": "leading"}], ids=["all", "leading"])
def test_scores_that_choose_nothing_are_not_trained_and_count_in_no_norm(changes):
    one = adapted(**changes)
    assert not any("h2tune_scores" in name for name in one.phases()["shared"])
    for round_number in (0, 1):
        one.receive(download(one, round_number))
        assert train(one, round_number).without_gradient <= {"relation.logits"}
    scores = [p for n, p in one.model.named_parameters() if "h2tune_scores" in n]
    assert scores and all(p.grad is None and not p.requires_grad for p in scores)


def test_one_slot_leaves_no_relation_to_learn():
    one = adapted(slots=1)
    for round_number in (0, 1):
        one.receive(download(one, round_number))
        assert train(one, round_number).without_gradient == set()
    assert "relation.logits" not in one.phases()["shared"]
    assert torch.equal(one.send()["relation"], torch.ones(1, 2))


def test_the_relations_gradient_is_clipped_with_the_others():
    one = adapted(weights=(0.0, 0.0, 0.0))
    one.receive(download(one, 0))
    train(one, 0)
    one.receive(download(one, 1))
    before, norm, rate, steps = trained(one), 1e-4, 1e-2, 3
    train(one, 1, steps=steps, max_grad_norm=norm, arguments={"optim": "sgd"})
    shared = one.phases()["shared"]
    moved = sum(float((p - before[n]).square().sum()) for n, p in shared.items()) ** 0.5
    assert 0 < moved <= norm * rate * steps * 1.01
    assert not torch.equal(shared["relation.logits"], before["relation.logits"])


def test_a_head_on_a_bfloat16_base_trains_in_float32():
    one = adapted("bert", base_dtype=torch.bfloat16)
    head = [p for n, p in one.phases()["specific"].items() if "classifier" in n]
    before = [p.detach().clone() for p in head]
    assert head and all(p.dtype == torch.float32 for p in head)
    one.receive(download(one, 0))
    train(one, 0, causal=False)
    moved = [(p.detach() - b).abs().max() for p, b in zip(head, before, strict=True)]
    assert all(0 < float(m) < 0.1 for m in moved)
    assert all(p.dtype == torch.bfloat16 for p in one.detach().parameters())


def test_libraries_are_left_out_of_garbage_collection_only_while_a_run_lasts(monkeypatch):
    monkeypatch.setattr(garbage, "_ACTIVE", [])  # a worker of another test may still run in this process
    added = [[] for _ in range(50_000)]
    before = gc.get_freeze_count()  # pytest's own, some of which come and go
    freeze_new_objects()
    assert abs(gc.get_freeze_count() - before) < len(added) // 2
    with pytest.raises(ZeroDivisionError), garbage_collection_frozen():
        before = gc.get_freeze_count()
        assert before > 100_000
        more = [[] for _ in added]
        freeze_new_objects()
        assert gc.get_freeze_count() > before + len(more) // 2
        _ = 1 / 0
    assert gc.get_freeze_count() == 0
