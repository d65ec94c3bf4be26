"""The paper's four protocols: they are read, and h2tune inspect explains them, without weights or a Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny
from transformers import AutoConfig

from h2tune.config import load
from h2tune.runs.inspect import inspect

FOLDER = Path(__file__).parents[2] / "examples" / "paper"
SIZES = {
    "gemma": {"hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1,
              "head_dim": 256, "intermediate_size": 16384, "vocab_size": 256000, "max_position_embeddings": 8192},
    "llama": {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
              "head_dim": 128, "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 131072},
    "smollm": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
               "head_dim": 64, "intermediate_size": 8192, "vocab_size": 49152, "max_position_embeddings": 2048},
}  # fmt: skip
"""The published sizes of Gemma 2B, Llama 3.2 3B and SmolLM 1.7B."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, sizes in SIZES.items():
        AutoConfig.for_model("gemma" if name == "gemma" else "llama", **sizes).save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    return [f"client.{name}.model={folder / name}" for name in SIZES]


def test_there_are_four():
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == [
        f"{data}-{tasks}" for data in ("d1", "d2") for tasks in ("heterogeneous", "homogeneous")
    ]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_a_protocol_is_explained(name, models):
    federation = load(FOLDER / f"{name}.toml", models)
    assert (federation.server.rounds, federation.data.train, federation.data.test) == (5, 5000, 500)
    # one epoch a round: whole batches, and less than one more
    batch, steps = federation.train.batch_size, federation.train.local_steps
    assert 0 <= federation.data.train - batch * steps < batch
    forecast = inspect(federation)
    assert (forecast.shared_rank, forecast.slots) == (128, 28)
    clients = {client["name"]: client for client in forecast.clients}
    assert {n: (c["rank"], c["depth"]) for n, c in clients.items()} == {
        "gemma": (16, 18), "llama": (64, 28), "smollm": (128, 24),
    }  # fmt: skip
    assert all(sum(c["roles"].values()) == 7 * c["depth"] for c in clients.values())
    kept = 18 * 7 * 16**2
    # ΔT in float32; where its entries are, in two bytes each; the relation (28, 18)
    assert clients["gemma"]["bytes_up"] == kept * 4 + kept * 2 + 28 * 18 * 4
    tasks, parts = {c["task"] for c in clients.values()}, federation.experimental.parts
    if name.endswith("heterogeneous"):
        assert len(tasks) == 3 and not parts
    else:
        assert len(tasks) == 1 and sorted(parts.values()) == [(0, 3), (1, 3), (2, 3)]
