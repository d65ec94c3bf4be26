"""The quickstart on real weights and real text, with a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import federations

from h2tune.compare.rows import ALL
from h2tune.events import read_events

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart.toml"
FEW = (
    "experimental.alone=false",
    "train.local_steps=2",
    "client.films.local_steps=2",
    "data.test=32",
    "basis.count=200",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "run"
    changes = [word for change in FEW for word in ("--set", change)]
    federations.h2tune("run", str(QUICKSTART), "--out", str(out), "--strict", *changes)
    return out


def test_inspect_predicted_what_was_recorded(run):
    from h2tune.config import load
    from h2tune.runs.inspect import inspect

    log = read_events(run / "events.jsonl")
    for client in inspect(load(QUICKSTART, FEW)).clients:
        started = next(c for c in log[0]["clients"] if c["name"] == client["name"])
        assert client["trainable_parameters"] == started["trainable_parameters"]
        mine = [e for e in log if e["event"] == "client_trained" and e["client"] == client["name"]]
        assert len(mine) == 1
        for event in mine:
            assert event["bytes_up"] == client["bytes_up"]
            assert event["bytes_down"] == client["bytes_down"][event["round"]]


@pytest.mark.parametrize("client", ["films"])
def test_the_exported_lora_gives_the_logits_of_the_adapter(run, client):
    from peft import PeftModel

    import h2tune.adapter  # noqa: F401 - enters the adapter in PEFT's tables
    from h2tune.models import load_model
    from h2tune.runs.folder import read_run

    model = next(c for c in read_run(run).client if c.name == client).model
    ids = torch.tensor([[100, 2000, 345, 678, 901]])
    logits = []
    for form in ("adapter", "lora"):
        adapted = PeftModel.from_pretrained(
            load_model(model, "causal", "float32", 0), run / "clients" / client / form
        )
        with torch.inference_mode():
            logits.append(adapted.eval()(input_ids=ids).logits)
    assert torch.allclose(*logits, rtol=1e-5, atol=1e-4)


def test_every_method_runs_by_name_on_the_quickstart_or_says_why_it_cannot(tmp_path):
    """Where no two clients have the same model, methods that average LoRA share nothing, and state it."""
    from h2tune.baselines import MODULES
    from h2tune.compare import compare
    from h2tune.compare.methods import ABLATIONS

    methods = [*MODULES, "h2tune", *ABLATIONS]
    changes = [c for c in FEW if not c.startswith("experimental.alone")] + [
        'experimental.evaluate_rounds="last"'
    ]
    found = compare(QUICKSTART, methods, seeds=1, out=tmp_path, overrides=changes)
    assert not found.problems
    rows = [row for row in found.rows() if row.client != ALL]
    assert {(row.method, row.client) for row in rows} == {
        (method, client)
        for method in methods
        for client in ("films", "products", "editorials", "feed", "news")
    }
    for row in rows:
        shares = row.method != "local" and row.method != "h2tune-alone" and not row.note
        assert (row.bytes_up > 0) == shares, row
    assert {row.method for row in rows if row.note} == set(MODULES) - {"local", "co-lora"}
