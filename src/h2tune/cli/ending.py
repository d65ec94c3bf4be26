"""How a command ends: errors that the user can fix in one line, and what to do after an interruption."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import Any

import click
import typer
from typer.core import TyperGroup

from h2tune.errors import H2TuneError

SPACE = "Free some space, and run the same command again (h2tune run: with --resume)"
REMEDIES = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EACCES: "Choose a place that you may write to",
    errno.EPERM: "Choose a place that you may write to",
    errno.EROFS: "Choose a place that can be written to",
    errno.EEXIST: "Choose another name",
    errno.EISDIR: "Name a file",
    errno.ENOTDIR: "Name a folder",
    errno.ENOENT: "Check the path",
}
"""What to do about errors of the file system, which are no faults of h2tune."""
AGAIN = {
    "run": ". The same command with --resume goes on after the last finished work",
    "compare": ". The same command goes on after the last finished run",
}
"""What a command says when it is interrupted."""
FAULT, INTERRUPTED = 2, 130
"""Exit statuses."""


class Commands(TyperGroup):
    """The commands; typer would end an interrupted one without a word."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            again = AGAIN.get(ctx.invoked_subcommand or "", "")
            typer.echo(f"h2tune: interrupted{again}", err=True)
            raise typer.Exit(INTERRUPTED) from None


def ended(command: Callable[[], Any]) -> int:
    """Run a command line and return its exit status; an error that the user can fix is one line."""
    try:
        command()
    except H2TuneError as error:
        typer.echo(f"h2tune: {error}", err=True)
        return FAULT
    except Exception as error:
        if (line := file_error(error)) is None:
            raise
        typer.echo(f"h2tune: {line}", err=True)
        return FAULT
    return 0


def file_error(error: Exception) -> str | None:
    """Return a line about an error of the file system, with what to do; None if it is another error.

    Copies of folders and safetensors have errors of their own, which hold the system's as text.
    """
    if isinstance(error, OSError) and error.errno in REMEDIES:
        place = error.filename2 or error.filename or "a file"
        return f"{place}: {error.strerror}. {REMEDIES[error.errno]}"
    if not isinstance(error, shutil.Error) and type(error).__name__ != "SafetensorError":
        return None
    for number, remedy in REMEDIES.items():
        if os.strerror(number) in str(error):
            return f"a file cannot be written: {os.strerror(number)}. {remedy}"
    return None
