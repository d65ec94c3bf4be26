"""Write the test examples of a client of a finished run as JSON Lines for lm-evaluation-harness.

python examples/lm-eval/rows.py runs/quickstart films reviews.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from h2tune.runs.enrol import enrol_all, load_client
from h2tune.runs.results import read_run


def main(run: str, client: str, out: str) -> None:
    """Write one row per test example: the prompt, the labels' words, and the index of the correct one."""
    federation = read_run(Path(run))
    infos, enrolments, *_ = enrol_all(federation)
    local = next(
        load_client(info, enrolled, federation)
        for info, enrolled in zip(infos, enrolments, strict=True)
        if enrolled.name == client
    )
    rows = [
        {"prompt": e.prompt, "choices": [word.strip() for word in local.task.verbalisers], "label": e.label}
        for e in local.splits.test
    ]
    Path(out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
