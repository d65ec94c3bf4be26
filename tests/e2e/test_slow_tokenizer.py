"""A tokenizer in Python, without offsets, through a whole run on the default basis with a teacher."""

from __future__ import annotations

from helpers import federations, traits

import h2tune
from h2tune.federation import local_engine


def test_a_client_with_a_slow_tokenizer_takes_part_like_any_other(tmp_path, monkeypatch):
    slow, load = traits.tokenizer("slow"), local_engine.load_tokenizer
    content = federations.on_anchored_basis(tmp_path, consensus=True)
    size = {"llama": {"vocab": len(slow)}}
    (tmp_path / "slow").mkdir()
    content["client"] = federations.federation(tmp_path / "slow", options=size)["client"]
    content["data"] = {"train": 24, "test": 20}
    content["client"][0]["task"]["max_length"] = 20  # some are cut
    monkeypatch.setattr(
        local_engine, "load_tokenizer", lambda name, **k: slow if "llama" in name else load(name, **k)
    )
    run = h2tune.run(federations.write(tmp_path, content), out=tmp_path / "run")
    assert not [e for e in run.events if e["event"] == "client_failed"]
    (lesson,) = [e for e in run.events if e["event"] == "lesson_prepared" and e["client"] == "one"]
    assert "own_right" in lesson
    assert all(row["federated"] is not None for row in run.table)
