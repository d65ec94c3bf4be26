"""The worked notebook runs from its first cell to its last, in a process of its own as in a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from helpers.processes import environment

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "own-method.ipynb"


def test_the_notebook_runs_and_its_own_functions_are_used(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "cells.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "round 2 aggregated · 2 clients" in done.stdout and "report.html" in done.stdout
    resolved = tomllib.loads((tmp_path / "runs" / "own-method" / "config.toml").read_text())
    assert resolved["server"]["aggregation"] == "__main__:agreed"
    assert resolved["client"][0]["task"]["scorer"] == "__main__:nearness"
