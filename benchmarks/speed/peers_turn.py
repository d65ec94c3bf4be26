"""One turn of an engine for `peers.py`, in a process of its own: ENGINE_MODULE FOLDER; writes FOLDER/marks.json."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

ENGINES = ("peers_h2tune", "peers_flower", "peers_pfl")


def main() -> None:
    """Import the engine, run the job and write what it noted."""
    module, folder = sys.argv[1], Path(sys.argv[2])
    if module not in ENGINES:
        raise SystemExit(f"no engine is called {module}")
    marks = importlib.import_module(module).run(folder)
    (folder / "marks.json").write_text(json.dumps(asdict(marks)))


if __name__ == "__main__":
    main()
