"""Cache of models' states on public texts, from one run to the next."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from helpers import federations
from safetensors.torch import load_file, save_file

from h2tune.config import parse
from h2tune.federation.h2tune.reading_cache import ReadingCache
from h2tune.runs.run import run
from h2tune.training.readings import read_rows


def test_a_later_run_reads_from_the_cache_unless_weights_or_texts_differ(tmp_path, monkeypatch):
    from h2tune.federation.h2tune import model_reader

    monkeypatch.setattr(model_reader, "SMALL", 0)
    monkeypatch.setenv("H2TUNE_CACHE", str(tmp_path / "cache"))
    content, read = federations.on_anchored_basis(tmp_path, rounds=1), []

    def counted(*args, **options):
        read.append(len(options["modules"]))
        return read_rows(*args, **options)

    def frames(folder):
        federation = parse(content, "test", tmp_path)
        run(federation, out=tmp_path / folder, strict=True)
        times = len(read)
        read.clear()
        stored = [
            load_file(tmp_path / folder / "clients" / n / "frames" / "frames.safetensors")
            for n in ("one", "two")
        ]
        return times, stored

    def same(one, other):
        return all(torch.equal(t, o[n]) for f, o in zip(one, other, strict=True) for n, t in f.items())

    monkeypatch.setattr(model_reader, "read_rows", counted)
    times, first = frames("first")
    assert times == 2
    times, again = frames("again")
    assert times == 0 and same(first, again)

    for file in (tmp_path / "cache" / "readings").iterdir():  # damaged: computed and stored again
        file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    times, repaired = frames("repaired")
    assert times == 2 and same(first, repaired)
    assert frames("after")[0] == 0

    weights = Path(content["client"][0]["model"]) / "model.safetensors"
    model = load_file(weights)
    name = next(n for n in sorted(model) if n.endswith("mlp.down_proj.weight"))
    save_file(model | {name: model[name] * 1.01}, weights, {"format": "pt"})
    times, other = frames("other")
    assert times >= 1 and not same(first, other)


def test_the_size_is_bounded_and_the_least_recently_used_is_removed_first(tmp_path):
    kept, computed = ReadingCache(tmp_path, room=4000), []

    def once(name, count=200):  # 800 bytes of values and a head
        kept.get_or_compute(name, lambda: computed.append(name) or {"x": torch.zeros(count)})
        return len(computed)

    assert [once(n) for n in "abca"] == [1, 2, 3, 3]
    for n in "abc":
        os.utime(tmp_path / f"{n}.safetensors", (0, {"a": 30, "b": 10, "c": 20}[n]))
    once("d"), once("e")
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 4000
    assert not (tmp_path / "b.safetensors").exists() and (tmp_path / "a.safetensors").exists()
    (tmp_path / ".f.safetensors.x.tmp").write_bytes(bytes(2000))  # left by a crash
    os.utime(tmp_path / ".f.safetensors.x.tmp", (0, 5))
    once("f")
    assert not (tmp_path / ".f.safetensors.x.tmp").exists()
    once("large", 2000)
    assert not (tmp_path / "large.safetensors").exists()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    kept = ReadingCache(tmp_path / "file" / "readings")
    assert kept.get_or_compute("x", lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]
