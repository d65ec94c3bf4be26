"""The tiny models themselves: seeded, apart from the global generator, and loadable as ordinary folders."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from helpers import tiny


def test_seeded_without_touching_the_global_generator():
    before = torch.get_rng_state()
    first, same, other = tiny.causal("llama"), tiny.causal("llama"), tiny.causal("llama", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_small_float32_and_without_dropout(family):
    model = tiny.classifier(family)
    ids = torch.tensor([[1, 5, 6, 7]])
    assert sum(p.numel() for p in model.parameters()) < 30_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model.train()(input_ids=ids).logits)


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family != "qwen2"])
def test_a_saved_folder_loads_as_any_other(family, tmp_path):
    folder = tiny.save_model_folder(tmp_path / family, family, words=["zebra", "positive"], seed=3)
    encoder = family in tiny.ENCODERS
    loaded = (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    made = tiny.classifier(family, 3) if encoder else tiny.causal(family, 3)
    assert len(words) == loaded.config.vocab_size == 64
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), made.parameters(), strict=True))
    assert words("a zebra is positive, qux")["input_ids"] == words.convert_tokens_to_ids(
        ["[EOS]", "a", "zebra", "is", "positive", ",", "[UNK]"]
    )
    assert (words.pad_token_id, words.eos_token_id) == (
        loaded.config.pad_token_id,
        loaded.config.eos_token_id,
    )
    assert words.padding_side == ("right" if encoder else "left")


def test_the_vocabulary_grows_for_words_only():
    assert len(tiny.tokenizer()) == len(tiny.tokenizer(["zebra"])) == 64
    assert len(tiny.tokenizer([f"word{i}" for i in range(100)])) == 103
    assert tiny.tokenizer(vocab=200, side="left").padding_side == "left"
    assert len(tiny.tokenizer(vocab=200)) == 200
