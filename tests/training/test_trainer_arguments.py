"""What a federation file may ask of the Trainer beyond h2tune's own keys, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch
from helpers.locally import adapted, download, train, trained

from h2tune.errors import H2TuneError
from h2tune.training.arguments import check_arguments, try_arguments


def after_two_rounds(family: str, **arguments):
    one = adapted(family)
    records = []
    for round_number in (0, 1):
        one.receive(download(one, round_number))
        records.append(train(one, round_number, causal=family != "bert", arguments=arguments))
    return trained(one), [loss for record in records for _, loss in record.losses]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_activation_checkpointing_trains_the_same_to_the_bit(family):
    plain, losses = after_two_rounds(family)
    again, same = after_two_rounds(family, activation_checkpointing=True)
    assert losses == same
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_activation_checkpointing_computes_each_block_again(monkeypatch):
    from h2tune.adapter.layer import H2TuneLayer

    calls = []
    original = H2TuneLayer.forward
    monkeypatch.setattr(H2TuneLayer, "forward", lambda *a, **k: calls.append(1) or original(*a, **k))
    after_two_rounds("llama")
    plain = len(calls)
    after_two_rounds("llama", activation_checkpointing=True)
    assert len(calls) - plain == 2 * plain


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_bfloat16_keeps_trained_weights_in_float32(family):
    plain, losses = after_two_rounds(family)
    mixed, near = after_two_rounds(family, bf16=True, use_cpu=True)
    assert all(tensor.dtype == torch.float32 for tensor in mixed.values())
    assert losses != near  # it did compute in another type
    assert losses[0] == pytest.approx(near[0], rel=0.02)
    assert any(not torch.equal(plain[name], mixed[name]) for name in plain)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which has bfloat16")
def test_what_this_machine_cannot_do_is_refused_before_training():
    with pytest.raises(
        H2TuneError, match=r"train\.arguments: the Trainer refuses them: .*bf16.*use_cpu = true"
    ):
        try_arguments({"bf16": True})


def test_reentrant_checkpointing_is_refused():
    with pytest.raises(H2TuneError, match="use_reentrant"):
        check_arguments(
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            "constant",
        )


def test_an_optimiser_that_does_not_exist_is_refused_before_training():
    with pytest.raises(H2TuneError, match="adamm is not a valid"):
        try_arguments({"optim": "adamm"})
    try_arguments({"optim": "adafactor"})
