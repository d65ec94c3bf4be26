"""Everything of a classifier that its folder has no weights for is trained, and is in what is exported."""

from __future__ import annotations

import pytest
import torch
from helpers import federations, tiny
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import h2tune
from h2tune.config import load
from h2tune.errors import H2TuneError
from h2tune.models import load_model
from h2tune.runs.plan import planned

FAMILIES = (
    "bert",
    "albert",
    "rembert",
    "ernie",
    "megatron-bert",
    "electra",
    "roberta",
    "distilbert",
    "modernbert",
    "xlm-roberta",
    "camembert",
    "mpnet",
)


def save_masked_model(folder, family, seed=0):
    """Save a masked language model, which has neither a pooler nor a classification head, and its tokenizer."""
    words = tiny.tokenizer((), vocab=64, side="right")
    sizes = {
        "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 256,
    }  # fmt: skip
    sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24} if family == "distilbert" else {}
    sizes |= {"embedding_size": 16} if family in ("albert", "electra") else {}
    sizes |= {"input_embedding_size": 16, "output_embedding_size": 16} if family == "rembert" else {}
    config = AutoConfig.for_model(family, pad_token_id=0, **sizes)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    kept = {
        name: t
        for name, t in load_file(folder / "model.safetensors").items()
        if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    words.save_pretrained(folder)
    return folder


def federation_of(folder, model):
    content = federations.federation(folder, (("one", "bert", 4), ("two", "bert", 4)))
    for client in content["client"]:
        client["model"] = str(model)
    content["server"]["rounds"] = 1
    return content


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_classifier_predicts_in_a_new_process_what_it_predicted_in_the_run(tmp_path, family):
    model = save_masked_model(tmp_path / family, family)
    file = federations.write(tmp_path, federation_of(tmp_path, model))
    run = h2tune.run(file, out=tmp_path / "run", strict=True)
    (event,) = [
        e for e in run.events if e["event"] == "evaluated" and e["client"] == "one" and e["round"] == 0
    ]
    client = planned(load(file)).clients[0]
    words = AutoTokenizer.from_pretrained(model)
    batch = words([e.text for e in client.splits.test], return_tensors="pt", padding=True)
    found = []
    for seed in (1, 2):  # what is drawn at loading must not matter
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
        adapted = PeftModel.from_pretrained(base, run.folder / "clients/one/lora").eval()
        with torch.no_grad():
            found.append(adapted(**batch).logits)
    assert torch.equal(*found)
    labels = torch.tensor([e.label for e in client.splits.test])
    loss = torch.nn.functional.cross_entropy(found[0], labels)
    assert abs(float(loss) - event["loss"]) < 1e-4


def test_a_folder_that_lacks_more_than_a_head_is_refused(tmp_path):
    model = save_masked_model(tmp_path / "bert", "bert")
    tensors = load_file(model / "model.safetensors")
    gone = "bert.encoder.layer.1.attention.self.query.weight"
    save_file(
        {k: t for k, t in tensors.items() if k != gone},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(H2TuneError, match=r"no weights for bert\.encoder\.layer\.1"):
        load_model(str(model), "classifier", "float32", 0)
