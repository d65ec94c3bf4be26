"""The command group `h2tune assets`."""

from __future__ import annotations

from typing import Annotated

import typer

assets_app = typer.Typer(help="Demo models and data sets, pinned by checksum.", no_args_is_help=True)


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
