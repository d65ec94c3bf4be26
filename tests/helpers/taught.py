"""Federations whose clients teach each other by public texts, and what their runs leave."""

from __future__ import annotations

import random
import shutil

from safetensors.torch import load_file

from helpers import federations

THREE = (("one", "bert", 4), ("two", "bert", 4), ("three", "llama", 4))  # a decoder in words takes no teacher


def content(folder, strategy="h2tune", clients=THREE, **changes):
    """Return a federation whose public texts have the words that decide the labels."""
    draw = random.Random(99)
    words = ("good", "great", "fine", "bad", "poor", "dull")
    texts = [" ".join([*draw.sample(federations.FILL, 5), draw.choice(words)]) for _ in range(90)]
    texts = list(dict.fromkeys(texts))[:64]
    (folder / "public.txt").write_text("\n".join(texts) + "\n")
    found = federations.federation(
        folder, clients, server={"rounds": 2, "strategy": strategy},
        basis={"kind": "anchored", "texts": [str(folder / "public.txt")], "count": 64, "consensus": True},
        data={"train": 40, "test": 20}, experimental={"public_batch": 4, "increments": "mean"},
    )  # fmt: skip
    return found | changes


def lessons(run):
    return [e for e in run.events if e["event"] == "lesson_prepared"]


def shared(folder, number=2):
    return load_file(folder / f"server/round-{number:04d}/state.safetensors")["shared"]


def alone_in_its_labels(folder, seed=0):
    """Return a federation whose client "three" has labels of its own; "one" gets rows of this seed."""
    found = content(folder)
    rows = federations.write_rows(folder / "one.jsonl", seed=seed).read_text()
    (folder / "three.jsonl").write_text(rows.replace('"yes"', '"warm"').replace('"no"', '"cold"'))
    found["client"][2]["task"] |= {"labels": ["warm", "cold"]}
    found["server"]["rounds"] = 3
    return found


def with_encoder(folder, monkeypatch, **changes):
    """Return a federation whose coordinates are those of a public encoder, named as on a hub."""
    monkeypatch.chdir(folder)
    found = content(folder, **changes)
    (encoder,) = [c["model"] for c in found["client"] if c["name"] == "two"]
    shutil.copytree(encoder, folder / "public/encoder")
    found["basis"]["encoder"] = "public/encoder"
    return found
