"""A finished run's clients are evaluated and exported on the very models that the run built."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from helpers import federations
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import h2tune
from h2tune.cli import main
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.events import read_events
from h2tune.runs.results import evaluate_run, export_client

CLIENTS = (("one", "llama", 4), ("two", "bert", 8), ("three", "llama", 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run of two decoders with one base model, and an encoder that was trained on other labels."""
    place = tmp_path_factory.mktemp("results")
    content = federations.federation(place, CLIENTS)
    content["client"][2]["head"] = "classifier"  # a decoder with a head: it has to know the padding token
    for family in ("llama", "bert"):
        config = place / "models" / family / "config.json"
        known = json.loads(config.read_text()) | {"id2label": {"0": "ham", "1": "spam"}}
        known |= {"label2id": {"ham": 0, "spam": 1}, "pad_token_id": None if family == "llama" else 0}
        config.write_text(json.dumps(known))
    return h2tune.run(parse(content, "t", place), out=place / "run").folder


def last_scores(folder):
    return {e["client"]: e for e in read_events(folder / "events.jsonl") if e["event"] == "evaluated"}


def test_evaluate_equals_the_last_score_of_the_run(folder):
    recorded = last_scores(folder)
    for name, score in evaluate_run(folder, (), "test"):
        event = recorded.pop(name)
        assert (score.accuracy, score.examples) == (event["accuracy"], event["examples"])
        assert score.loss == pytest.approx(event["loss"], rel=1e-6)
    assert not recorded


def test_one_client_scores_the_same_as_among_others(folder):
    ((name, score),) = evaluate_run(folder, ["two"], "test")
    assert name == "two" and score.loss == pytest.approx(last_scores(folder)["two"]["loss"], rel=1e-6)


def test_a_client_that_was_never_drawn_does_not_keep_the_others_from_being_scored(tmp_path):
    server = {"rounds": 1, "participation": 0.4}
    run = h2tune.run(
        parse(federations.federation(tmp_path, CLIENTS, server=server), "t", tmp_path), out=tmp_path / "run"
    )
    drawn = {e["client"] for e in run.events if e["event"] == "client_trained"}
    (never,) = {name for name, *_ in CLIENTS} - drawn
    assert {name for name, _ in evaluate_run(run.folder, (), "test")} == drawn
    with pytest.raises(H2TuneError, match=f"client '{never}' has no adapter: it took part in no round"):
        list(evaluate_run(run.folder, [never], "test"))
    said = CliRunner().invoke(main.app, ["evaluate", str(run.folder)]).stdout
    assert f"{never}: no adapter; it took part in no round, or failed in all" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "nf4"])
def test_evaluate_equals_the_run_exactly_in_every_type_of_weights(tmp_path, dtype):
    """With a fixed relation: where it is learned, a run saves M of the last Z and may have scored the M before it."""
    if dtype == "nf4":
        pytest.importorskip("bitsandbytes", reason="pip install 'h2tune[quantized]'")
    content = federations.federation(
        tmp_path,
        options={f: {"width": 64} for f in ("llama", "bert")},
        experimental={"alignment": "depth"},
    )
    for client in content["client"]:
        client["dtype"] = dtype
    run = h2tune.run(parse(content, "t", tmp_path), out=tmp_path / "run")
    recorded = {name: event["loss"] for name, event in last_scores(run.folder).items()}
    assert {name: score.loss for name, score in evaluate_run(run.folder, (), "test")} == recorded


def test_long_prompts_are_cut_at_the_positions_of_the_model(tmp_path):
    content = federations.federation(tmp_path, options={"llama": {"max_position_embeddings": 8}})
    run = h2tune.run(parse(content, "t", tmp_path), out=tmp_path / "run")
    recorded = {name: event["loss"] for name, event in last_scores(run.folder).items()}
    assert {n: s.loss for n, s in evaluate_run(run.folder, (), "test")} == pytest.approx(recorded, rel=1e-6)


def test_the_merged_model_names_the_labels_of_its_task(folder, tmp_path):
    export_client(folder, "two", tmp_path / "merged", "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert model.config.id2label == {0: "yes", 1: "no"}
    assert model.config.label2id == {"yes": 0, "no": 1}


def test_a_merged_decoder_with_a_head_knows_its_padding_token(folder, tmp_path):
    export_client(folder, "three", tmp_path / "merged", "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert model.config.pad_token_id == tokenizer.pad_token_id
    batch = tokenizer(["the film good", "the film so very dull"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        assert model(**batch).logits.shape == (2, 2)


def test_a_merged_export_does_not_need_the_data(folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("one.jsonl", "gone.jsonl"))
    assert (export_client(run, "one", tmp_path / "merged", "merged") / "model.safetensors").exists()


def test_quantised_weights_are_not_merged(folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run")
    config = run / "config.toml"
    config.write_text(config.read_text().replace('\ndtype = "float32"', '\ndtype = "nf4"'))
    with pytest.raises(H2TuneError, match=r"client 'one' is quantised.*--format lora"):
        export_client(run, "one", tmp_path / "merged", "merged")
    assert not (tmp_path / "merged").exists()
    assert (export_client(run, "one", tmp_path / "lora") / "adapter_model.safetensors").exists()


def test_an_unknown_client_is_an_error_that_names_the_nearest(folder, tmp_path):
    with pytest.raises(H2TuneError, match=r"no client 'tow'.*did you mean 'two'"):
        list(evaluate_run(folder, ["one", "tow"], "test"))
    with pytest.raises(H2TuneError, match="did you mean 'three'"):
        export_client(folder, "thre", tmp_path / "out")


def test_a_split_without_examples_is_an_error(folder):
    with pytest.raises(H2TuneError, match="client 'one' has no validation examples"):
        list(evaluate_run(folder, (), "validation"))


def test_unknown_splits_and_formats_are_errors(folder, tmp_path):
    with pytest.raises(H2TuneError, match="did you mean 'test'"):
        list(evaluate_run(folder, (), "tests"))
    with pytest.raises(H2TuneError, match="did you mean 'merged'"):
        export_client(folder, "one", tmp_path / "out", "merge")


def test_the_rows_for_lm_eval_are_the_test_examples_of_a_client(folder, tmp_path):
    script = Path(__file__).resolve().parents[2] / "examples" / "lm-eval" / "rows.py"
    runpy.run_path(str(script))["main"](str(folder), "one", str(tmp_path / "rows.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and {row["label"] for row in rows} == {0, 1}
    assert all(row["choices"] == ["yes", "no"] and row["prompt"].endswith("answer :") for row in rows)
