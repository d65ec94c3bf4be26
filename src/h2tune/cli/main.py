"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from h2tune._version import __version__
from h2tune.cli.deploy import deploy_app
from h2tune.errors import H2TuneError

app = typer.Typer(
    help="Federated fine-tuning of models that share neither architecture, nor task, nor budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Demo models and data, pinned and checked.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(deploy_app, name="deploy")

File = Annotated[Path, typer.Argument(help="A federation file (TOML).", metavar="FEDERATION.toml")]
Change = Annotated[list[str] | None, typer.Option("--set", help="Change a key: train.learning_rate=1e-4.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: File,
    change: Change = None,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/NAME].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Make warnings errors.")] = False,
) -> None:
    """Train a federation on this machine."""
    from rich.console import Console

    from h2tune.cli.display import TerminalDisplay, results_table, total_steps
    from h2tune.config import load
    from h2tune.runs.run import run as run_federation

    federation = load(file, change or ())
    console = Console()
    with TerminalDisplay(console, total_steps(federation)) as display:
        finished = run_federation(federation, out=out, resume=resume, strict=strict, display=display)
    console.print(results_table(finished.table))
    console.print(f"Adapters, events and report: {finished.folder}", highlight=False, soft_wrap=True)


@app.command()
def inspect(file: File, change: Change = None) -> None:
    """Say what a run will train and send, before it. Loads no weights."""
    from rich.console import Console
    from rich.table import Table

    from h2tune.config import load
    from h2tune.runs.inspect import inspect as forecast_of

    forecast = forecast_of(load(file, change or ()))
    console = Console()
    console.print(
        f"R = {forecast.shared_rank}, D = {forecast.slots} slots, roles {', '.join(forecast.roles) or 'none'}",
        highlight=False,
    )
    table = Table("client", "family", "task", "rank")
    for name in ("trainable", "bytes up", "bytes down"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in forecast.clients:
        numbers = (c["trainable_parameters"], c["bytes_up"], c["bytes_down"][-1])
        table.add_row(
            c["name"], c["family"], c["task"], str(c["rank"]), *(f"{number:,}" for number in numbers)
        )
    console.print(table)
    for c in forecast.clients:
        roles = ", ".join(f"{role} × {count}" for role, count in c["roles"].items())
        how = "its words" if c["kind"] == "causal" else "a private head"
        console.print(
            f"{c['name']}: {c['model']}, {c['depth']} blocks, answers through {how}, {c['memory_bytes'] / 1e6:,.0f} MB"
            f" (weights, gradients, Adam; without activations)\n  {roles}"
            + (f"\n  {c['note']}" if c["note"] else ""),
            highlight=False,
            soft_wrap=True,
        )
    for line in forecast.guards:
        console.print(line, highlight=False, soft_wrap=True)
    console.print("Bytes are of every round after the first, in which nothing is sent down.", highlight=False)
    if any(sum(c["basis_bytes"]) for c in forecast.clients):
        told = ", ".join(
            "{} {:,} up and {:,} down".format(c["name"], *c["basis_bytes"]) for c in forecast.clients
        )
        console.print(
            f"Once, to agree on a basis on public texts: {told} bytes.", highlight=False, soft_wrap=True
        )


@app.command()
def compare(
    file: File,
    methods: Annotated[
        str,
        typer.Option(help="Strategies and ablations, such as local,h2tune,fedit+train.learning_rate=3e-4."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from the file's own on.")] = 5,
    change: Change = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: runs/NAME-compare].")] = None,
    against: Annotated[
        str | None, typer.Option(help="Method that differences are taken to [default: local, or the first].")
    ] = None,
    split: Annotated[str | None, typer.Option(help="test or validation [default: as the file says].")] = None,
) -> None:
    """Run methods on the same seeds and compare them; start it again to go on."""
    from rich.console import Console

    from h2tune.cli.display import TerminalDisplay, total_steps
    from h2tune.compare import compare as compare_methods
    from h2tune.compare.tables import explained, remarks, terminal_table

    console = Console()
    found = compare_methods(
        file,
        methods.split(","),
        seeds=seeds,
        overrides=change or (),
        out=out,
        against=against,
        split=split,
        tell=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        displays=lambda federation: TerminalDisplay(console, total_steps(federation), brief=True),
    )
    rows, facts = found.rows(), found.facts()
    console.print(terminal_table(rows, facts))
    for line in (*explained(facts), *remarks(facts)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Tables, report and runs: {found.folder}", highlight=False, soft_wrap=True)


@app.command()
def report(
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(help="File [default: RUN/report.html].")] = None,
) -> None:
    """Write the report of a run: one HTML file that works offline."""
    from h2tune.report import write_report

    typer.echo(str(write_report(folder, out)))


@app.command()
def evaluate(
    folder: RunFolder,
    client: Annotated[list[str] | None, typer.Option(help="Only this client; may be repeated.")] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
) -> None:
    """Score the adapters of a run again."""
    from h2tune.runs.results import evaluate_run

    for name, score in evaluate_run(folder, client or (), split):
        typer.echo(f"{name}: accuracy {score.accuracy:.4f}, loss {score.loss:.4f}, {score.examples} examples")


@app.command()
def export(
    folder: RunFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    client: Annotated[str, typer.Option(help="The client whose adapter to export.")],
    form: Annotated[
        str, typer.Option("--format", help="lora, adapter, or merged (the whole model).")
    ] = "lora",
) -> None:
    """Write a client's adapter as plain LoRA, as h2tune adapter, or merged into its model."""
    from h2tune.runs.results import export_client

    typer.echo(str(export_client(folder, client, out, form)))


@assets_app.command("list")
def assets_list() -> None:
    """List the demo models and data."""
    from rich.console import Console
    from rich.table import Table

    from h2tune.assets import list_assets

    table = Table("name", "kind", "licence", "size", "cached")
    for asset in list_assets():
        table.add_row(
            asset.name,
            asset.kind,
            asset.license,
            f"{asset.size / 1e6:.0f} MB",
            "yes" if asset.cached else "no",
        )
    Console().print(table)


@assets_app.command("fetch")
def assets_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Names; all by default.")] = None,
) -> None:
    """Fetch, check and convert demo models and data."""
    from h2tune.assets import fetch, list_assets

    for name in names or [asset.name for asset in list_assets()]:
        typer.echo(f"{name}: {fetch(name)}")


def main() -> None:
    """Run the command line; what the user can mend is one line and exit status 2."""
    # Waiting threads that spin make a step ten times slower where anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A million objects live on after torch and Transformers are imported; looking through them every 700 takes seconds.
    gc.set_threshold(50_000, 20, 100)
    try:
        app()
    except H2TuneError as error:
        typer.echo(f"h2tune: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("h2tune: interrupted; go on with the same command (run: and --resume)", err=True)
        sys.exit(130)
