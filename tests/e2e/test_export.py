"""Exported adapters and models work without h2tune."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import federations, tiny
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import h2tune.adapter
from h2tune import assets

PLAIN = """
import sys, torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
folder, out = sys.argv[1:]
logits = {}
for client, family, cls, options in (
    ("one", "llama", AutoModelForCausalLM, {}),
    ("two", "bert", AutoModelForSequenceClassification, {"num_labels": 2}),
):
    base = cls.from_pretrained(f"{folder}/models/{family}", **options)
    model = PeftModel.from_pretrained(base, f"{folder}/exported/{client}").eval()
    ids = torch.tensor([[1, 5, 9, 14, 20]])
    with torch.no_grad():
        logits[client] = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
assert not any(name.startswith("h2tune") for name in sys.modules)
from safetensors.torch import save_file
save_file(logits, out)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    file = federations.write(folder, federations.federation(folder))
    federations.h2tune("run", str(file), "--out", str(folder / "run"))
    return folder


@pytest.fixture(scope="module")
def plain_logits(run):
    """The logits of both clients' exported adapters with plain PEFT, in a process that never imports h2tune."""
    from safetensors.torch import load_file

    for client in ("one", "two"):
        exported = run / "exported" / client
        federations.h2tune("export", str(run / "run"), str(exported), "--client", client)
    out = run / "logits.safetensors"
    subprocess.run(
        [sys.executable, "-c", PLAIN, str(run), str(out)],
        env={k: v for k, v in federations.environment().items() if k != "PYTHONPATH"},
        check=True,
        capture_output=True,
    )
    return load_file(out)


@pytest.mark.parametrize(
    ("client", "family", "kind"), [("one", "llama", "causal"), ("two", "bert", "classifier")]
)
def test_plain_peft_loads_the_exported_adapter_and_gives_the_same_logits(
    run, plain_logits, client, family, kind
):
    base = run / "models" / family
    cls = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    model = PeftModel.from_pretrained(
        cls.from_pretrained(base), run / "run" / "clients" / client / "adapter"
    ).eval()
    ids = torch.tensor([[1, 5, 9, 14, 20]])
    with torch.no_grad():
        ours = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(ours, plain_logits[client], atol=1e-5)


@pytest.mark.parametrize(
    ("command", "options"), [("merge", ()), ("export", ("--merged",)), ("export", ("--format", "merged"))]
)
def test_the_merged_model_is_an_ordinary_model(run, tmp_path, command, options):
    federations.h2tune(command, str(run / "run"), str(tmp_path / "m"), "--client", "one", *options)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    base = tiny.causal("llama")
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(run / "models" / "llama"),
        run / "run" / "clients" / "one" / "lora",
    ).eval()
    ids = torch.tensor([[1, 5, 9, 14, 20]])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)
        assert not torch.allclose(merged(ids).logits, base(ids).logits, atol=1e-3)


@pytest.mark.parametrize(
    ("client", "cls", "options"),
    [
        ("one", AutoPeftModelForCausalLM, {}),
        ("two", AutoPeftModelForSequenceClassification, {"num_labels": 2}),
    ],
)
def test_peft_finds_the_base_model_by_itself(run, plain_logits, client, cls, options):
    model = cls.from_pretrained(run / "run" / "clients" / client / "lora", **options).eval()
    ids = torch.tensor([[1, 5, 9, 14, 20]])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(logits, plain_logits[client], atol=1e-5)


@pytest.mark.parametrize("form", ["lora", "adapter"])
def test_the_model_card_says_what_it_is_and_its_code_runs(run, form):
    from h2tune.events import read_events

    events = read_events(run / "run" / "events.jsonl")
    for client, rank in (("one", 4), ("two", 8)):
        folder = run / "run" / "clients" / client / form
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: peft\n") and "`yes`, `no`" in card
        accuracy = [e for e in events if e["event"] == "evaluated" and e["client"] == client][-1]["accuracy"]
        assert f"| test | 20 | {accuracy:.3f} | " in card and f"| data | rows of {client}.jsonl |" in card
        assert str(run) not in card  # paths of the client's machine
        assert "Base model: not stated in its folder." in card and "## Privacy" in card
        whole = json.loads((folder / "adapter_config.json").read_text())["r"]
        assert whole == rank  # the free basis adds none
        assert f"| rank | {whole}" in card and ("--max-lora-rank" in card) == (form == "lora")
        code = card.split("```python\n")[1].split("```")[0]
        done = subprocess.run(
            [sys.executable, "-c", f"folder = {str(folder)!r}\n{code}\nprint(model.config.id2label)"],
            env=federations.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert client == "one" or done.stdout.strip().endswith("{0: 'yes', 1: 'no'}")


def test_evaluate_gives_what_the_run_recorded(run):
    from h2tune.events import read_events

    recorded = {
        e["client"]: e for e in read_events(run / "run" / "events.jsonl") if e["event"] == "evaluated"
    }
    output = federations.h2tune("evaluate", str(run / "run")).stdout
    for client, event in recorded.items():
        assert f"{client}: accuracy {event['accuracy']:.4f}, loss {event['loss']:.4f}" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--client", "onne"), "did you mean 'one'"),
        (("--client", "one", "--format", "gguf"), "lora, adapter or merged"),
    ],
)
def test_export_says_what_was_wrong(run, tmp_path, arguments, message):
    result = federations.h2tune("export", str(run / "run"), str(tmp_path / "x"), *arguments, check=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_the_adapter_of_a_demo_model_names_it_and_no_folder_of_this_machine(tmp_path, monkeypatch):
    content = federations.federation(tmp_path, (("one", "llama", 4),), server={"rounds": 1, "min_clients": 1})
    folder = Path(content["client"][0]["model"])
    monkeypatch.setattr(assets, "path_of", lambda name: folder)
    monkeypatch.setattr(assets, "model_config", lambda name: json.loads((folder / "config.json").read_text()))
    content["client"][0]["model"] = "pypi:smollm2-135m-instruct"
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    for kind in ("adapter", "lora"):
        written = json.loads((run.folder / "clients" / "one" / kind / "adapter_config.json").read_text())
        assert written["base_model_name_or_path"] == "pypi:smollm2-135m-instruct"
