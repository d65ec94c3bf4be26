"""From a federation file to a finished run: enrol clients, build the method, run, inspect, evaluate, export."""

from pathlib import Path


def default_folder(name: str) -> Path:
    """Return the run folder of a federation of that name."""
    return Path("runs") / name
