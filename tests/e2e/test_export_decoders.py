"""Eleven decoders: exported adapters give h2tune's own log-odds of labels in a process without h2tune."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from helpers import federations, tiny

import h2tune
from h2tune.evaluation.evaluate import label_scores
from h2tune.runs.results import restored_client
from h2tune.tasks.prompts import filled
from h2tune.tasks.task import Example
from h2tune.training.encode import encode_causal

FAMILIES = tuple(family for family in tiny.DECODERS if family != "qwen2")
TEXTS = ("the film good cast", "the book bad plot", "the a game", "a team news news dull the the film the")
PROMPT, WORDS = "text : {} answer :", (" yes", " no")
PLAIN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
prompt, words, texts, folders = json.loads(sys.argv[1])
found = {}
for name, (base, lora) in folders.items():
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora).eval()
    rows = []
    for text in texts:
        row = []
        for word in words:
            ids = tokenizer(prompt.format(text) + word)["input_ids"]
            start = len(tokenizer(prompt.format(text))["input_ids"])
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
            row.append(sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids))))
        rows.append(row[0] - row[1])
    found[name] = rows
assert not any(name.startswith("h2tune") for name in sys.modules)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def odds(tmp_path_factory):
    """Return the log-odds by client: of h2tune, and of plain Transformers and PEFT in a process of their own."""
    folder = tmp_path_factory.mktemp("decoders")
    clients = [(family.replace("_", "-"), family, 2) for family in FAMILIES]
    content = federations.federation(folder, clients, server={"rounds": 1}, train={"learning_rate": 3e-2})
    run = h2tune.run(federations.write(folder, content), out=folder / "run")
    ours, folders = {}, {}
    for table in content["client"]:
        restored = restored_client(run.folder, table["name"])
        task, tokenizer = restored.client.task, restored.tokenizer
        prompts = [filled(task.template, {"words": text}) for text in TEXTS]
        rows = encode_causal(task, [Example(p.text, "", 0, "", p.fields) for p in prompts], tokenizer)
        with torch.no_grad():
            scores = label_scores(restored.model, task, rows, tokenizer, causal=True, batch_size=3)
        ours[table["name"]] = (scores[:, 0] - scores[:, 1]).tolist()
        folders[table["name"]] = table["model"], str(run.folder / "clients" / table["name"] / "lora")
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, json.dumps([PROMPT, WORDS, TEXTS, folders])],
        env={k: v for k, v in federations.environment().items() if k != "PYTHONPATH"},
        check=True,
        capture_output=True,
        text=True,
    )
    return ours, json.loads(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_odds_of_an_exported_decoder_are_h2tune_s_own(odds, family):
    ours, plain = (torch.tensor(found[family.replace("_", "-")]) for found in odds)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    assert ours.std() > 1e-3  # else anything would pass
