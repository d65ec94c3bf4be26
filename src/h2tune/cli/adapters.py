"""The commands that use what was trained: evaluate, predict, export, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from h2tune.cli.paths import RunFolder, check_file, check_run_folder
from h2tune.errors import counted


def evaluate(
    folder: RunFolder,
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client; repeatable.", show_default="all clients")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to score: test or validation.")] = "test",
) -> None:
    """Score the saved adapters of a run."""
    check_run_folder(folder)
    from h2tune.runs.folder import NEVER_TRAINED, check_split, check_validation, read_run, trained_clients

    check_split(split)
    trained = {chosen.name for chosen in trained_clients(folder, client or ())}
    for left_out in [] if client else read_run(folder).sorted_clients():
        if left_out.name not in trained:
            typer.echo(f"{left_out.name}: no adapter; {NEVER_TRAINED}")
    if split == "validation":
        check_validation(folder, client or ())
    from h2tune.quiet import quiet
    from h2tune.runs.results import evaluate_run

    with quiet():
        for name, score in evaluate_run(folder, client or (), split):
            of = counted(score.examples, "example")
            typer.echo(f"{name}: {score.measure} {score.accuracy:.4f}, loss {score.loss:.4f}, {of}")


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


def merge(
    folder: RunFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.", metavar="OUT")],
    client: Annotated[str, typer.Option(help="Name of the client whose model is merged.")],
) -> None:
    """Write a client's model with its adapter in the weights: an ordinary model folder, as export --merged does."""
    export(folder, out, client, merged=True)
