"""Write the test examples of a client of a finished run as JSON Lines for lm-evaluation-harness.

python examples/lm-eval/rows.py runs/quickstart films reviews.jsonl
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

from h2tune.config import parse
from h2tune.runs.enrol import enrol_all, load_member


def main(run: str, client: str, out: str) -> None:
    """Write one row for each test example: the prompt, the labels' words, and which of them is right."""
    path = Path(run) / "config.toml"
    federation = parse(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    seen, enrolments, *_ = enrol_all(federation)
    member = next(
        load_member(s, e, federation) for s, e in zip(seen, enrolments, strict=True) if e.name == client
    )
    rows = [
        {"prompt": e.prompt, "choices": [word.strip() for word in member.task.verbalisers], "label": e.label}
        for e in member.splits.test
    ]
    Path(out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
