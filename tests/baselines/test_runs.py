"""Every baseline through `run`, from a federation's content to its events, states and exported adapters."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import federations, tiny
from safetensors.numpy import load_file

from h2tune import baselines
from h2tune.baselines.lora import initial_down
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.models import base_seed
from h2tune.runs.run import run

CLIENTS = (("one", "llama", 4), ("two", "llama", 4), ("far", "bert", 4))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread; and the Trainer's garbage collections skip the imported libraries."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the federation: two clients have one, the third has another."""
    path = tmp_path_factory.mktemp("baselines")
    for family in ("llama", "bert"):
        tiny.save_model_folder(path / "models" / family, family, labels=2, blocks=1)
    return path


@pytest.mark.parametrize("name", [name for name in baselines.MODULES if name != "linear-head"])
@pytest.mark.filterwarnings(
    "ignore:Adapter 'default'"
)  # PEFT 0.21 takes the bias that lora_bias asks for as a fault
def test_run(name: str, folder: Path) -> None:
    texts = folder / "public.txt"
    texts.write_text("\n".join(federations.PUBLIC[:24]) + "\n")
    content = federations.federation(
        folder,
        CLIENTS,
        basis={"texts": [str(texts)], "count": 24},
        server={"strategy": name, "rounds": 2, "weighting": "examples"},
        train={"local_steps": 2, "batch_size": 2},
        data={"train": 4, "test": 4},
    )
    content["client"][1]["train"] = 12  # so that the weights are 1/4 and 3/4
    out = folder / name
    run(parse(content, "test"), out=out)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [e for e in events if e["event"] in ("warning", "client_failed")] == []
    groups = (
        []
        if name in baselines.UNSHARED
        else [["far", "one", "two"]]
        if name == "co-lora"
        else [["one", "two"]]
    )
    assert [e["groups"] for e in events if e["event"] == "aggregated"] == [groups] * 2
    for event in (e for e in events if e["event"] == "client_trained"):
        shares = any(event["client"] in group for group in groups)
        assert (event["bytes_up"] > 0) == shares and event["received_matches"]
        assert (event["bytes_down"] > 0) == (shares and event["round"] == 1)
        assert all(distance > 0 for distance in event["moved"].values())
    if name in ("fedit", "ffa-lora", "fedsa-lora", "fed-sb"):
        _mean_was_shared(out)
    _what_must_stay_stayed(name, out, content)


def _mean_was_shared(out: Path) -> None:
    first = {c: load_file(out / f"clients/{c}/state/round-0000/update.safetensors") for c in ("one", "two")}
    server = load_file(out / "server/round-0001/state.safetensors")
    for key in first["one"]:
        expected = 0.25 * first["one"][key] + 0.75 * first["two"][key]
        np.testing.assert_allclose(server[f"one/{key}"], expected, rtol=1e-5, atol=1e-7)


def _what_must_stay_stayed(name: str, out: Path, content: dict[str, Any]) -> None:
    """A of ffa-lora is as drawn, B of fedsa-lora never left, and private parts differ between clients."""
    kept = {c: load_file(out / f"clients/{c}/state/round-0001/private.safetensors") for c in ("one", "two")}
    lora = {c: load_file(out / f"clients/{c}/lora/adapter_model.safetensors") for c in ("one", "two")}
    seed = base_seed(0, content["client"][0]["model"])
    for key, tensor in lora["one"].items():
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if key.endswith("lora_A.weight"):
            as_drawn = np.array_equal(tensor, initial_down(seed, module, *tensor.shape).numpy())
            assert as_drawn == (name == "ffa-lora")
    if name == "ffa-lora":
        assert not any(key.endswith("lora_A") for key in kept["one"])
    if name == "fedsa-lora":
        sent = load_file(out / "clients/one/state/round-0001/update.safetensors")
        assert all(key.endswith("lora_A") for key in sent)
    for key, tensor in kept["one"].items():
        common = key == "rank" or key.startswith("stack/")
        assert np.array_equal(tensor, kept["two"][key]) == common


def test_a_linear_head_is_trained_and_nothing_else(tmp_path):
    content = federations.federation(tmp_path, (("one", "bert", 4), ("two", "distilbert", 4)))
    content["server"]["strategy"] = "linear-head"
    done = run(federations.write(tmp_path, content), out=tmp_path / "run", strict=True)
    trained = [e for e in done.events if e["event"] == "client_trained"]
    assert all(set(e["moved"]) == {"head"} and e["bytes_up"] == 0 for e in trained)
    for name in ("one", "two"):
        tensors = load_file(done.folder / f"clients/{name}/lora/adapter_model.safetensors")
        assert not any(t.any() for key, t in tensors.items() if "lora_B" in key)


def test_a_decoder_that_answers_in_words_has_no_linear_head(tmp_path):
    content = federations.federation(tmp_path)
    content["server"]["strategy"] = "linear-head"
    with pytest.raises(H2TuneError, match=r"client .one.*has no head to train"):
        run(federations.write(tmp_path, content), out=tmp_path / "run")
