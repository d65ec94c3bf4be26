"""The commands that train and compare: run, inspect, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from h2tune.cli.paths import FederationFile, check_place, read_federation

if TYPE_CHECKING:
    from rich.console import Console

    from h2tune.compare.comparison import Comparison

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
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat warnings and failed clients as errors.")
    ] = False,
    jobs: Jobs = None,
) -> None:
    """Train a federation on this machine."""
    federation = read_federation(file, override or ())
    from h2tune.runs import default_folder

    check_place(out or default_folder(federation.name), resume=resume or from_round is not None)
    from h2tune.cli.display import TerminalDisplay, loading_line, results_table, terminal

    console = terminal()
    console.print(loading_line(len(federation.client)))
    from h2tune.runs.run import run as run_federation

    with TerminalDisplay(console) as display:
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


def inspect(file: FederationFile, override: Override = None) -> None:
    """Show what a run would train and send. Loads no weights, and only the first rows of data."""
    federation = read_federation(file, override or ())
    from h2tune.cli.display import terminal
    from h2tune.cli.forecast import print_forecast
    from h2tune.runs.inspect import inspect as forecast_of

    print_forecast(terminal(), forecast_of(federation))


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
        displays=lambda federation: TerminalDisplay(console, brief=True),
    )
    _print_comparison(console, comparison, form)
    comparison.check_results()


def _print_comparison(console: Console, comparison: Comparison, form: str) -> None:
    """Print a comparison as a table with what explains it, or as LaTeX alone."""
    from h2tune.compare.paper import latex
    from h2tune.compare.tables import explained, headroom_table, remarks, terminal_table

    rows, facts = comparison.rows(), comparison.facts()
    if form == "latex":
        typer.echo(latex(rows, facts), nl=False)
        return
    console.print(terminal_table(rows, facts))
    if (headroom := headroom_table(facts)) is not None:
        console.print(headroom)
    for line in (*explained(rows, facts), *remarks(facts)):
        console.print(line, soft_wrap=True)
    console.print(f"All numbers, figures, report and runs: {comparison.folder}", soft_wrap=True)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run or a comparison.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
) -> None:
    """Write the report of a run or a comparison: one HTML file that works offline."""
    from h2tune.report import write_report

    typer.echo(str(write_report(folder, out)))
