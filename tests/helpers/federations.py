"""Tiny federations on disk: models, data and a federation file, ready for the real command line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from helpers import processes, tiny
from helpers.processes import environment as environment

PUBLIC = [f"{a} {b} {c}" for a in tiny.WORDS[15:25] for b in tiny.WORDS[25:35] for c in ("good", "film")]
FILL = ("the", "a", "film", "book", "game", "news", "plot", "cast", "score", "team")


def write_rows(path: Path, count: int = 160, seed: int = 0) -> Path:
    """Write rows whose label depends on a single word, learnable in a few steps."""
    draw = random.Random(seed)
    rows = set()
    while len(rows) < count:
        label = draw.random() < 0.5
        words = [draw.choice(FILL) for _ in range(6)]
        words[draw.randrange(6)] = draw.choice(
            ("good", "great", "fine") if label else ("bad", "poor", "dull")
        )
        rows.add((" ".join(words), "yes" if label else "no"))
    path.write_text("".join(json.dumps({"words": w, "label": y}) + "\n" for w, y in sorted(rows)))
    return path


def task(path: Path) -> dict[str, Any]:
    """Return a task table over a file of `write_rows`."""
    return {"file": str(path), "prompt": "text : {words} answer :", "text": "{words}", "answer": "label",
            "labels": ["yes", "no"]}  # fmt: skip


def federation(
    folder: Path,
    clients: Sequence[tuple[str, str, int]] = (("one", "llama", 4), ("two", "bert", 8)),
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Mapping[str, Any],
) -> dict[str, Any]:
    """Make models and data of a federation and return its content.

    Args:
        folder: Where to write them.
        clients: Name, family and rank of each.
        options: Family → options of its tiny model.
        sections: Changes to the sections of the file.
    """
    tables = []
    for i, (name, family, rank) in enumerate(clients):
        model = folder / "models" / family
        if not model.exists():
            tiny.save_model_folder(model, family, labels=2, **dict((options or {}).get(family, {})))
        rows = write_rows(folder / f"{name}.jsonl", seed=i)
        tables.append({"name": name, "model": str(model), "rank": rank, "task": task(rows)})
    base: dict[str, Any] = {
        "server": {"rounds": 2, "min_clients": 1},
        "basis": {"kind": "free"},
        "train": {"local_steps": 3, "batch_size": 4, "learning_rate": 1e-2},
        "data": {"train": 24, "test": 20},
    }
    for section, changes in sections.items():
        base[section] = {**base.get(section, {}), **changes}
    return {"name": "tiny", **base, "client": tables}


def write(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write a federation file and return its path."""
    path = folder / "federation.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def command(*arguments: str) -> list[str]:
    """Return the real command line for a separate process."""
    return [sys.executable, "-m", "h2tune", *arguments]


def h2tune(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process, and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        process = processes.start(arguments, Path(folder) / "text")
        process.join()
        out, err = ((Path(folder) / f"text.{ending}").read_text() for ending in ("out", "err"))
    done = subprocess.CompletedProcess(command(*arguments), process.exitcode or 0, out, err)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}: {err}")
    return done


def comparable(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return events without times, which are equal in two equal runs."""
    return [
        {key: value for key, value in event.items() if key not in ("time", "seconds")} for event in events
    ]


def on_anchored_basis(folder: Path, *, consensus: bool = False, **server: Any) -> dict[str, Any]:
    """Return a federation on an anchored basis over sixty public texts, without a consensus unless asked for."""
    texts = folder / "public.txt"
    texts.write_text("\n".join(PUBLIC[:60]) + "\n")
    content = federation(folder) | {
        "basis": {"kind": "anchored", "texts": [str(texts)], "count": 60, "consensus": consensus},
        "experimental": {"basis_scale": 0.5},
    }
    content["server"] = server
    return content
