"""Checks of the paths on a command line, which answer before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from h2tune.errors import H2TuneError


def existing_file(path: Path) -> Path:
    """Return a path to a file, as a callback of an argument.

    Raises:
        H2TuneError: There is no such file.
    """
    if not path.exists():
        raise H2TuneError("no such file", where=str(path), remedy="Check the path")
    return path


def run_folder(path: Path) -> Path:
    """Return a path to a run folder, as a callback of an argument.

    Raises:
        H2TuneError: The folder does not exist or is not a run folder.
    """
    if not (path / "config.toml").is_file():
        raise H2TuneError(
            "not a run folder: it has no config.toml", where=str(path), remedy="Give a folder of h2tune run"
        )
    return path


FederationFile = Annotated[
    Path, typer.Argument(help="Federation file (TOML).", metavar="FEDERATION.toml", callback=existing_file)
]
ClientFile = Annotated[
    Path, typer.Argument(help="File of one client (TOML).", metavar="MEMBER.toml", callback=existing_file)
]
RunFolder = Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN", callback=run_folder)]
