"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from h2tune._version import __version__
from h2tune.cli.adapters import evaluate, export, merge, predict
from h2tune.cli.assets import assets_app
from h2tune.cli.deploy import deploy_app
from h2tune.cli.ending import Commands, ended
from h2tune.cli.training import compare, inspect, report, run

app = typer.Typer(
    cls=Commands,
    help="Federated fine-tuning of models that share neither architecture, nor task, nor budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, inspect, compare, report, evaluate, predict, export, merge):
    app.command()(command)
app.add_typer(assets_app, name="assets")
app.add_typer(deploy_app, name="deploy")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line, and exit with its status."""
    # Waiting threads that spin make a step ten times slower where anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch and Transformers leave a million objects alive: a collection every 700 allocations would take seconds.
    gc.set_threshold(50_000, 20, 100)
    sys.exit(ended(app))
