"""What the runs of a member have spent of its ε: one small file in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from h2tune import files
from h2tune.errors import H2TuneError

FILE = "epsilon.json"


def spent_elsewhere(folder: Path, experiment: str) -> float:
    """Return the ε that the member's other runs have spent.

    Raises:
        H2TuneError: The file was altered.
    """
    return sum(value for name, value in _read(folder).items() if name != experiment)


def note(folder: Path, experiment: str, epsilon: float) -> None:
    """Keep the ε that a run has spent with its latest round, before anything of that round leaves."""
    found = _read(folder)
    if epsilon > found.get(experiment, 0.0):
        files.write_json(folder / FILE, found | {experiment: epsilon})


def _read(folder: Path) -> dict[str, float]:
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        raise H2TuneError("its record of spent ε (epsilon.json) cannot be read") from None
