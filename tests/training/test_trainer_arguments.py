"""What a federation file may ask of the Trainer beyond h2tune's own keys, as far as a CPU can show it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from helpers.locally import adapted, download, train, trained
from transformers import TrainingArguments

from h2tune.errors import H2TuneError
from h2tune.training import allowed
from h2tune.training.arguments import check_arguments, try_arguments
from h2tune.training.local import LocalTraining


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


PAGE = Path(__file__).resolve().parents[2] / "docs" / "federation-file.md"
MARKS = "<!-- trainer arguments -->\n", "<!-- end of trainer arguments -->\n"
FIELDS = sorted(field.name for field in dataclasses.fields(TrainingArguments) if field.init)


@pytest.mark.parametrize("name", FIELDS)
def test_every_argument_is_honoured_or_refused_with_a_reason(name):
    reasons = allowed.reasons()
    assert (name in allowed.honoured()) != (name in reasons)
    if name in reasons:
        with pytest.raises(H2TuneError, match=f"'{name}' is refused: ") as caught:
            check_arguments({name: None}, "constant")
        assert reasons[name] in str(caught.value)
    else:
        check_arguments({name: {} if name.endswith("kwargs") else None}, "constant")


def test_no_group_names_an_argument_that_is_none():
    groups = [
        name for names in (*allowed.HONOURED.values(), *allowed.REFUSED.values()) for name in names.split()
    ]
    assert sorted(groups) == FIELDS


@pytest.mark.parametrize(
    "arguments",
    [
        {"optim": "sgd"},
        {"optim": "adamw_torch", "optim_args": "amsgrad=True"},
        {"adam_beta1": 0.5},
        {"adam_beta2": 0.5},
        {"adam_epsilon": 1.0},
        {"neftune_noise_alpha": 50.0},
    ],
)
def test_what_is_honoured_changes_what_is_trained(arguments):
    plain, _ = after_two_rounds("llama")
    changed, _ = after_two_rounds("llama", **arguments)
    assert any(not torch.equal(plain[name], changed[name]) for name in plain)


def test_a_client_trains_on_one_device_where_there_are_several(monkeypatch, tmp_path):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu))
    setup = TrainingArguments.__post_init__

    def several(self):
        setup(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", several)
    assert TrainingArguments(str(tmp_path), per_device_train_batch_size=4).train_batch_size == 8
    numbers = LocalTraining(
        alternation="joint", rounds=1, local_steps=1, batch_size=4, accumulation=1,
        learning_rates={"specific": 1e-3}, weight_decay=0.0, scheduler="constant", warmup_steps=0,
        max_grad_norm=1.0, arguments={},
    )  # fmt: skip
    assert numbers.trainer_arguments(str(tmp_path), 1, 0).train_batch_size == 4


def test_arguments_of_the_scheduler_reach_it():
    found = []
    for cycles in (1, 3):
        one = adapted("llama")
        one.receive(download(one, 0))
        kwargs = {"num_cycles": cycles}
        train(one, 0, steps=4, scheduler="cosine_with_restarts", arguments={"lr_scheduler_kwargs": kwargs})
        found.append(trained(one))
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    "arguments", [{"dataloader_num_workers": 1}, {"full_determinism": True}, {"torch_empty_cache_steps": 1}]
)
def test_what_concerns_the_machine_alone_changes_nothing(arguments, monkeypatch):
    plain, losses = after_two_rounds("llama")
    again, same = after_two_rounds("llama", **arguments)
    torch.use_deterministic_algorithms(False)
    assert losses == same and all(torch.equal(plain[name], again[name]) for name in plain)


def test_the_page_has_the_table_of_arguments():
    text = PAGE.read_text(encoding="utf-8")
    assert f"{MARKS[0]}{allowed.table()}{MARKS[1]}" in text, f"run python {Path(__file__).name}"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    PAGE.write_text(page[:before] + allowed.table() + page[after:], encoding="utf-8")
    sys.exit()
