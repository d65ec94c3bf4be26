"""The embedded engine: what clients on one machine share, and isolation between them."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from safetensors.torch import load_file

import h2tune
from h2tune.adapter.layer import H2TuneLayer
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.federation import attach as client_module
from h2tune.federation import local_client
from h2tune.federation.attach import attach_adapter
from h2tune.federation.h2tune.strategy import H2Tune
from h2tune.models import load_model
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all, load_client


def first_client(file):
    federation = load(file)
    seen, enrolments, size, slots = enrol_all(federation)
    strategy = build_strategy(federation, enrolments, size, slots)
    base = load_model(seen[0].client.model, seen[0].kind, "float32", 0)
    return base, load_client(seen[0], enrolments[0], federation), strategy


def test_a_client_that_cannot_attach_leaves_the_base_model_clean(tmp_path):
    base, client, strategy = first_client(federations.write(tmp_path, federations.federation(tmp_path)))
    names = set(base.state_dict())
    with pytest.raises(H2TuneError, match="missing"):
        attach_adapter(base, client, strategy, {"stranger": torch.zeros(1)})
    assert set(base.state_dict()) == names
    assert not any(isinstance(module, H2TuneLayer) for module in base.modules())


def test_all_parameters_are_created_on_the_trainers_device(tmp_path, monkeypatch):
    base, client, strategy = first_client(federations.write(tmp_path, federations.federation(tmp_path)))
    meta = torch.device("meta")  # the one other device that every machine has
    monkeypatch.setattr(client_module, "training_device", lambda numbers: meta)
    adapted = attach_adapter(base, client, strategy, None)
    assert adapted.shared.logits.device == meta
    assert {t.device for t in adapted.model.state_dict().values()} == {meta}


def test_alone_a_client_trains_in_the_rounds_in_which_it_was_drawn(tmp_path):
    clients = [(name, "llama", 4) for name in ("one", "two", "three")]
    server = {"rounds": 3, "participation": 0.4}
    content = federations.federation(tmp_path, clients, server=server, experimental={"alone": True})
    file = federations.write(tmp_path, content)
    h2tune.run(file, out=tmp_path / "run")
    rounds: dict[str, set[tuple[str, int]]] = {"trained": set(), "alone": set()}
    for event in read_events(tmp_path / "run" / "events.jsonl"):
        if event["event"] == "client_trained":
            rounds[event["stage"]].add((event["client"], event["round"]))
    assert rounds["alone"] == rounds["trained"]
    assert len(rounds["trained"]) == 6


def test_with_more_rounds_training_alone_goes_on_from_its_last_one(tmp_path):
    content = federations.federation(tmp_path, server={"rounds": 4}, experimental={"alone": True})
    file = federations.write(tmp_path, content)
    whole = h2tune.run(file, out=tmp_path / "whole")
    h2tune.run(file, overrides=["server.rounds=2"], out=tmp_path / "parts")
    parts = h2tune.run(file, out=tmp_path / "parts", resume=True)
    states = []
    for run in (whole, parts):
        found = sorted(
            path.parent.name for path in run.folder.glob("clients/one/alone/*/private.safetensors")
        )
        assert found == ["round-0002", "round-0003"]
        states.append(load_file(run.folder / "clients/one/alone/round-0003/private.safetensors"))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert whole.table == parts.table


def test_a_decoder_without_a_padding_token_can_have_a_head(tmp_path):
    content = federations.federation(
        tmp_path, [("one", "llama", 4)], options={"llama": {"pad_token_id": None}}
    )
    content["client"][0]["head"] = "classifier"
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", strict=True)
    assert run.table[0]["federated"] is not None


def test_under_strict_a_resumed_run_fails_on_the_last_rounds_warnings(tmp_path, monkeypatch):
    file = federations.write(tmp_path, federations.federation(tmp_path))
    aggregate = H2Tune.aggregate
    with monkeypatch.context() as patch:
        patch.setattr(
            H2Tune, "aggregate", lambda self, state, updates: (state, aggregate(self, state, updates)[1])
        )
        with pytest.raises(H2TuneError, match="did not change"):
            h2tune.run(file, out=tmp_path / "run", strict=True)
    with pytest.raises(H2TuneError, match="did not change"):
        h2tune.run(file, out=tmp_path / "run", strict=True, resume=True)
    assert h2tune.run(file, out=tmp_path / "run", resume=True).table


def test_a_tasks_default_length_is_cut_to_the_models_positions(tmp_path):
    content = federations.federation(
        tmp_path, [("one", "bert", 4)], options={"bert": {"max_position_embeddings": 40}}
    )
    content["client"][0]["task"].pop("max_length", None)
    _, client, _ = first_client(federations.write(tmp_path, content))
    assert client.task.max_length == 40


def test_free_answers_are_generated_and_scored(tmp_path):
    content = federations.federation(
        tmp_path, [("one", "llama", 4)], train={"local_steps": 12}, server={"rounds": 2}
    )
    content["client"][0]["task"].pop("labels")
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run", strict=True)
    losses = [e["loss"] for e in run.events if e["event"] == "evaluated"]
    assert losses[-1] < losses[0]
    assert run.table[0]["federated"] > 0.3  # "yes" or "no", word by word, out of 64


def test_examples_are_tokenised_once(tmp_path, monkeypatch):
    calls = []
    for name in ("encode_causal", "encode_texts"):
        original = getattr(local_client, name)
        monkeypatch.setattr(local_client, name, lambda *a, f=original: calls.append(1) or f(*a))
    file = federations.write(tmp_path, federations.federation(tmp_path, experimental={"alone": True}))
    h2tune.run(file, out=tmp_path / "run")
    assert len(calls) == 4  # two clients, what they train on and what they are scored on
