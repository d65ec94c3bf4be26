"""What the runs of a member have spent of its ε, and under which settings: one small file in its folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.errors import H2TuneError

FILE = "epsilon.json"


def spent(folder: Path, *, without: str = "", unlike: str = "") -> float:
    """Return the ε that the member's runs have spent.

    Args:
        folder: The member's folder.
        without: Name of a run that is left out.
        unlike: Checksum of settings; runs under them are left out.

    Raises:
        H2TuneError: The file was altered.
    """
    runs = _read(folder).items()
    return sum(run["epsilon"] for name, run in runs if name != without and run["settings"] != unlike)


def note(folder: Path, experiment: str, settings: str, epsilon: float) -> None:
    """Keep the ε that a run has spent with its latest round, before anything of that round leaves.

    Args:
        folder: The member's folder.
        experiment: Name of the run.
        settings: Checksum of its settings, without the number of rounds.
        epsilon: ε of all its rounds so far.

    Raises:
        H2TuneError: The file was altered, or the run began under other settings.
    """
    try:
        with _locked(folder):
            found = _read(folder)
            before = found.get(experiment, {"epsilon": 0.0, "settings": settings})
            if before["settings"] != settings:
                raise H2TuneError("this run began under other settings, and a run keeps its settings")
            if experiment not in found or epsilon > before["epsilon"]:
                files.write_json(
                    folder / FILE, found | {experiment: {"epsilon": epsilon, "settings": settings}}
                )
    except OSError as error:
        raise H2TuneError(f"its folder cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {
            str(name): {"epsilon": float(run["epsilon"]), "settings": str(run["settings"])}
            for name, run in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        raise H2TuneError("its record of spent ε (epsilon.json) cannot be read") from None
