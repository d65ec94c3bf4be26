"""Checks of what a command line names, which answer before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from h2tune.config import FederationConfig


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


def read_federation(file: Path, overrides: Sequence[str]) -> FederationConfig:
    """Return a federation file, resolved, whose tasks, models and files are there.

    Raises:
        H2TuneError: The file, or what it names, is missing or malformed.
    """
    check_file(file)
    from h2tune.config import check_inputs, load

    federation = load(file, overrides)
    check_inputs(federation)
    return federation


def check_place(path: Path, *, resume: bool) -> None:
    """Check that a folder holds a run if it is to be resumed, and none otherwise.

    Raises:
        H2TuneError: It does not, or it does.
    """
    begun = (path / "events.jsonl").exists()
    if resume and not begun:
        raise H2TuneError(
            "there is no run to resume", where=str(path), remedy="Leave --resume out to start one"
        )
    if begun and not resume:
        raise H2TuneError(
            "holds a run already", where=str(path), remedy="Go on with --resume, or name another --out"
        )


FederationFile = Annotated[Path, typer.Argument(help="Federation file (TOML).", metavar="FEDERATION.toml")]
ClientFile = Annotated[Path, typer.Argument(help="File of one client (TOML).", metavar="MEMBER.toml")]
CoordinatorFile = Annotated[
    Path, typer.Argument(help="The coordinator's file (TOML).", metavar="COORDINATOR.toml")
]
RunFolder = Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")]
