"""How a command ends: errors that the user can fix in one line, and what to do after an interruption."""

from __future__ import annotations

import errno
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
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        place = error.filename2 or error.filename or "a file"
        typer.echo(f"h2tune: {place}: {error.strerror}. {REMEDIES[error.errno]}", err=True)
        return FAULT
    return 0
