"""Folders of models that are broken: one line that names the model, on the default basis as on any other."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import federations, tiny
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from h2tune.cli import main
from h2tune.errors import H2TuneError
from h2tune.events import read_events


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def not_finite(folder):
    tensors = load_file(folder / "model.safetensors")
    spoiled = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
    save_file(spoiled, folder / "model.safetensors", metadata={"format": "pt"})


def of_other_shapes(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))


def knowing_fewer_tokens(folder):
    tiny.causal("llama", vocab=20).save_pretrained(folder)


BROKEN = {
    cut_short: "cannot be loaded",
    without_weights: "cannot be loaded",
    not_finite: "its values are not finite",
    of_other_shapes: "its weights have other shapes than its config.json says",
    knowing_fewer_tokens: "and the model knows 20 tokens",
}


@pytest.mark.parametrize("basis", ["anchored", "free"])
@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_a_broken_model_is_named_in_one_line(tmp_path, spoil, basis):
    content = federations.on_anchored_basis(tmp_path, consensus=True)
    if basis == "free":
        content = federations.federation(tmp_path)
    spoil(tmp_path / "models" / "llama")
    file = federations.write(tmp_path, content)
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(tmp_path / "run")])
    if spoil is not_finite and basis == "free":  # nothing reads the model before it trains: that client fails
        assert any(
            "became nan" in e.get("reason", "") for e in read_events(tmp_path / "run" / "events.jsonl")
        )
        return
    assert isinstance(found.exception, H2TuneError), found.exception
    assert BROKEN[spoil] in str(found.exception) and "llama" in str(found.exception)


def test_a_padding_token_that_the_embeddings_have_no_row_for_is_replaced(tmp_path):
    """As after `add_special_tokens` without `resize_token_embeddings`."""
    content = federations.on_anchored_basis(tmp_path, consensus=True)
    for family in ("llama", "bert"):
        folder = tmp_path / "models" / family
        words = AutoTokenizer.from_pretrained(folder)
        words.add_special_tokens({"pad_token": "[NEW]"})
        words.save_pretrained(folder)
    for name in ("one", "two"):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        uneven = [
            row | {"words": " ".join([row["words"], *["film"] * (i % 5)])} for i, row in enumerate(rows)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in uneven))
    file = federations.write(tmp_path, content)
    found = CliRunner().invoke(main.app, ["run", str(file), "--out", str(tmp_path / "run")])
    assert found.exit_code == 0, found.exception
