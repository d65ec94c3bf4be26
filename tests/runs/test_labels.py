"""Labels that a decoder cannot tell apart stop a run before anything is read or trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import federations

import h2tune
from h2tune.errors import H2TuneError


def test_labels_of_the_same_tokens_stop_a_run_at_once(tmp_path):
    content = federations.federation(tmp_path, (("one", "llama", 4), ("two", "bert", 4)))
    task = content["client"][0]["task"]
    rows = [json.loads(line) for line in Path(task["file"]).read_text().splitlines()]
    answers = {"yes": "zebra", "no": "quagga"}  # both unknown to the tiny tokenizer
    changed = tmp_path / "changed.jsonl"
    changed.write_text(
        "".join(json.dumps(r | {task["answer"]: answers[r[task["answer"]]]}) + "\n" for r in rows)
    )
    content["client"][0]["task"] = task | {"file": str(changed), "labels": ["quagga", "zebra"]}
    with pytest.raises(
        H2TuneError, match=r"client 'one', task .* the labels 'quagga' and 'zebra' have the same tokens"
    ):
        h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    assert not (tmp_path / "run" / "clients").exists()
