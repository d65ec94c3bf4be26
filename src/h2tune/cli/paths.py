"""Checks of the paths on a command line, which answer before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from h2tune.errors import H2TuneError


def check_file(path: Path) -> None:
    """Check that a file exists.

    Raises:
        H2TuneError: There is no such file.
    """
    if not path.exists():
        raise H2TuneError("no such file", where=str(path), remedy="Check the path")


def check_run_folder(path: Path) -> None:
    """Check that a folder is a run folder.

    Raises:
        H2TuneError: The folder does not exist or is not a run folder.
    """
    if not (path / "config.toml").is_file():
        raise H2TuneError(
            "not a run folder: it has no config.toml", where=str(path), remedy="Give a folder of h2tune run"
        )


def check_resumable(path: Path) -> None:
    """Check that there is a run to resume.

    Raises:
        H2TuneError: The folder does not exist.
    """
    if not path.exists():
        raise H2TuneError(
            "there is no run to resume", where=str(path), remedy="Leave --resume out to start one"
        )


FederationFile = Annotated[Path, typer.Argument(help="Federation file (TOML).", metavar="FEDERATION.toml")]
ClientFile = Annotated[Path, typer.Argument(help="File of one client (TOML).", metavar="MEMBER.toml")]
CoordinatorFile = Annotated[
    Path, typer.Argument(help="The coordinator's file (TOML).", metavar="COORDINATOR.toml")
]
RunFolder = Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")]
