"""What a member accepts from the coordinator: settings, messages, and rounds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Update, digest

pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")

from flwr.app import RecordDict
from helpers.grids import EXPERIMENT

from h2tune.flower.load import read_settings
from h2tune.flower.member.join import join
from h2tune.flower.member.requests import RoundRequest
from h2tune.flower.member.round import take_part
from h2tune.flower.messages import pack, unpack


def test_settings_of_a_coordinator_that_are_none_are_refused_without_their_values(coordinator):
    content = json.loads(coordinator.settings.model_dump_json()) | {"seed": "secret"}
    with pytest.raises(H2TuneError, match="the coordinator's settings: seed") as error:
        read_settings(json.dumps(content))
    assert "secret" not in str(error.value)
    assert read_settings(coordinator.settings.model_dump_json()) == coordinator.settings


def test_messages_carry_tensors_bit_by_bit_and_malformed_ones_are_refused():
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.int16)}
    head, update = unpack(pack({"x": "y"}, Update("one", 2, 7, tensors)))
    assert head == {"x": "y"} and (update.client, update.round, update.examples) == ("one", 2, 7)
    assert digest(update.tensors) == digest(tensors)
    assert unpack(pack({}, Update("one", 0, 0, {})))[1].tensors == {}
    with pytest.raises(H2TuneError, match="malformed"):
        unpack(RecordDict())


def test_a_replay_gets_the_same_answer_and_other_rounds_are_refused(parties, coordinator):
    file, settings = parties / "members" / "one" / "member.toml", coordinator.settings
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "one", 0)
    request = RoundRequest(settings, EXPERIMENT, "one", 0, down.digest, {})
    first, again = take_part(file, request), take_part(file, request)
    assert first.update is not None and digest(first.update.tensors) == digest(again.update.tensors)
    down = strategy.download(strategy.start(), "one", 1)
    second = RoundRequest(settings, EXPERIMENT, "one", 1, down.digest, down.tensors)
    take_part(file, second)
    for changes, message in (
        ({"client": "two"}, "the message is for 'two'"),
        ({"round": 9}, "no round 9"),
        ({"tensors": {name: tensor + 1 for name, tensor in down.tensors.items()}}, "other tensors"),
        ({"experiment": "../x"}, "experiment"),
        ({"settings": settings.model_copy(update={"name": "other"})}, "federation is 'other'"),
    ):
        with pytest.raises(H2TuneError, match=message):
            take_part(file, replace(second, **changes))
    private = parties / "members" / "one" / "private" / EXPERIMENT
    log = (private / "events.jsonl").read_text()
    assert [json.loads(line)["round"] for line in log.splitlines() if "client_trained" in line] == [0, 1]
    assert (private / "clients" / "one" / "lora").is_dir()


def test_a_round_before_the_last_one_is_refused(parties, coordinator):
    file, settings = parties / "members" / "two" / "member.toml", coordinator.settings
    strategy = join(file, settings).strategy
    down = strategy.download(strategy.start(), "two", 1)
    request = RoundRequest(settings, "1" * 32, "two", 1, down.digest, down.tensors)
    take_part(file, request)
    with pytest.raises(H2TuneError, match="round 0 is over; round 1 is done here"):
        take_part(file, replace(request, round=0, tensors={}))
