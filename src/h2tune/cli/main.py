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
from h2tune.cli.ending import Commands, ended
from h2tune.cli.paths import (
    FederationFile,
    RunFolder,
    check_file,
    check_place,
    check_run_folder,
    read_federation,
)
from h2tune.errors import counted

app = typer.Typer(
    cls=Commands,
    help="Federated fine-tuning of models that share neither architecture, nor task, nor budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Demo models and data sets, pinned by checksum.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(deploy_app, name="deploy")

Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, as in train.learning_rate=1e-4; repeatable."
    ),
]


Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Train clients side by side in this many processes, one thread each.",
        show_default="one after another, in one process",
    ),
]


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


@app.command()
def run(
    file: FederationFile,
    override: Override = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    from_round: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Resume from before round N (from 0), and set later ones aside."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    jobs: Jobs = None,
) -> None:
    """Train a federation on this machine."""
    federation = read_federation(file, override or ())
    from h2tune.runs import default_folder

    check_place(out or default_folder(federation.name), resume=resume or from_round is not None)
    from h2tune.cli.display import TerminalDisplay, loading_line, results_table, terminal

    console = terminal()
    console.print(loading_line(len(federation.client)))
    from h2tune.runs.plan import total_steps
    from h2tune.runs.run import run as run_federation

    with TerminalDisplay(console, total_steps(federation)) as display:
        finished = run_federation(
            federation,
            out=out,
            resume=resume,
            from_round=from_round,
            strict=strict,
            jobs=jobs,
            monitors=[display],
        )
    console.print(results_table(finished.table))
    console.print(f"Adapters, events and report: {finished.folder}", soft_wrap=True)


@app.command()
def inspect(file: FederationFile, override: Override = None) -> None:
    """Show what a run would train and send. Loads no weights, and only the first rows of data."""
    federation = read_federation(file, override or ())
    from h2tune.cli.display import terminal
    from h2tune.cli.forecast import print_forecast
    from h2tune.runs.inspect import inspect as forecast_of

    print_forecast(terminal(), forecast_of(federation))


@app.command()
def compare(
    file: FederationFile,
    methods: Annotated[
        str,
        typer.Option(
            help="Strategies and ablations, as in local,h2tune,fedit; fedit+train.batch_size=4 overrides a key."
        ),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, counted up from the file's seed.")] = 5,
    override: Override = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison.", show_default="runs/NAME-compare")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Reference method of the differences.", show_default="local, else the first method"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to score: test or validation.", show_default="data.evaluate")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="What to print: table, or latex (for the package booktabs).")
    ] = "table",
    jobs: Jobs = None,
) -> None:
    """Run methods on the same seeds and compare them. Run the same command again to resume."""
    federation = read_federation(file, [*(override or ()), *([f'data.evaluate="{split}"'] if split else [])])
    from h2tune.compare.methods import parse_methods, reference_of
    from h2tune.compare.tables import check_form

    check_form(form)
    reference_of(parse_methods(methods.split(",")), against)
    from h2tune.cli.display import TerminalDisplay, loading_line, terminal

    console = terminal(stderr=form == "latex")
    console.print(loading_line(len(federation.client)))
    from h2tune.compare import compare as compare_methods
    from h2tune.compare.paper import latex
    from h2tune.compare.tables import explained, headroom_table, remarks, terminal_table
    from h2tune.runs.plan import total_steps

    comparison = compare_methods(
        file,
        methods.split(","),
        seeds=seeds,
        overrides=override or (),
        out=out,
        against=against,
        split=split,
        jobs=jobs,
        notice=lambda line: console.print(line, soft_wrap=True),
        displays=lambda federation: TerminalDisplay(console, total_steps(federation), brief=True),
    )
    rows, facts = comparison.rows(), comparison.facts()
    if form == "latex":
        typer.echo(latex(rows, facts), nl=False)
    else:
        console.print(terminal_table(rows, facts))
        if (headroom := headroom_table(facts)) is not None:
            console.print(headroom)
        for line in (*explained(facts), *remarks(facts)):
            console.print(line, soft_wrap=True)
        console.print(f"All numbers, figures, report and runs: {comparison.folder}", soft_wrap=True)
    comparison.check_results()


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or a comparison.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
) -> None:
    """Write the report of a run or a comparison: one HTML file that works offline."""
    from h2tune.report import write_report

    typer.echo(str(write_report(folder, out)))


@app.command()
def evaluate(
    folder: RunFolder,
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client; repeatable.", show_default="all clients")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to score: test or validation.")] = "test",
) -> None:
    """Score the saved adapters of a run."""
    check_run_folder(folder)
    from h2tune.runs.folder import check_split, check_validation, trained_clients

    check_split(split)
    trained_clients(folder, client or ())
    if split == "validation":
        check_validation(folder, client or ())
    from h2tune.quiet import quiet
    from h2tune.runs.results import evaluate_run

    with quiet():
        for name, score in evaluate_run(folder, client or (), split):
            of = counted(score.examples, "example")
            typer.echo(f"{name}: {score.measure} {score.accuracy:.4f}, loss {score.loss:.4f}, {of}")


@app.command()
def predict(
    folder: RunFolder,
    file: Annotated[
        Path, typer.Argument(help="JSON Lines, CSV, TSV or Parquet file of rows.", metavar="ROWS")
    ],
    client: Annotated[str, typer.Option(help="Name of the client that predicts.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, .csv or .jsonl.", show_default="the terminal")
    ] = None,
) -> None:
    """Predict the answers of new rows: labels with probabilities, or text."""
    check_run_folder(folder)
    check_file(file)
    from h2tune.runs.folder import trained_clients
    from h2tune.runs.questions import check_predictions, read_questions

    if out is not None:
        check_predictions(out)
    read_questions(trained_clients(folder, [client])[0], file)
    from h2tune.files import write_text
    from h2tune.quiet import quiet
    from h2tune.runs.predict import predict as predictions
    from h2tune.runs.predict import written

    with quiet():
        rows = predictions(folder, client, file)
    if out is None:
        typer.echo(written(rows, file.suffix.lower()), nl=False)
    else:
        write_text(out, written(rows, out.suffix.lower()))
        typer.echo(str(out))


@app.command()
def export(
    folder: RunFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.", metavar="OUT")],
    client: Annotated[str, typer.Option(help="Name of the client whose adapter is exported.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="lora (plain LoRA), adapter (h2tune's own), or merged (the whole model)."
        ),
    ] = "lora",
    merged: Annotated[bool, typer.Option("--merged", help="The same as --format merged.")] = False,
) -> None:
    """Write a client's adapter as plain LoRA or h2tune adapter, or its model with the adapter merged."""
    check_run_folder(folder)
    from h2tune.runs.folder import check_export, trained_clients

    check_export(out, form)
    trained_clients(folder, [client])
    from h2tune.quiet import quiet
    from h2tune.runs.results import export_client

    with quiet():
        typer.echo(str(export_client(folder, client, out, "merged" if merged else form)))


@app.command()
def merge(
    folder: RunFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.", metavar="OUT")],
    client: Annotated[str, typer.Option(help="Name of the client whose model is merged.")],
) -> None:
    """Write a client's model with its adapter in the weights: an ordinary model folder, as export --merged does."""
    export(folder, out, client, merged=True)


@assets_app.command("list")
def assets_list() -> None:
    """List the demo models and data sets."""
    from rich.table import Table

    from h2tune.assets import list_assets
    from h2tune.cli.display import terminal

    table = Table("name", "kind", "licence", "size", "cached")
    for asset in list_assets():
        size, cached = f"{asset.size / 1e6:.0f} MB", "yes" if asset.cached else "no"
        table.add_row(asset.name, asset.kind, asset.license, size, cached)
    terminal().print(table)


@assets_app.command("fetch")
def assets_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of assets.", metavar="NAME…", show_default="all")
    ] = None,
) -> None:
    """Download, verify and convert demo models and data sets."""
    from h2tune.assets import fetch, list_assets

    for name in names or [asset.name for asset in list_assets()]:
        typer.echo(f"{name}: {fetch(name)}")


def main() -> None:
    """Run the command line, and exit with its status."""
    # Waiting threads that spin make a step ten times slower where anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch and Transformers leave a million objects alive: a collection every 700 allocations would take seconds.
    gc.set_threshold(50_000, 20, 100)
    sys.exit(ended(app))
