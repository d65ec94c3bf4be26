"""What `h2tune inspect` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from h2tune.errors import counted
from h2tune.runs.inspect import Forecast


def print_forecast(console: Console, forecast: Forecast) -> None:
    """Print a forecast: the common settings, a table of the clients, and notes on each."""
    roles = ", ".join(forecast.roles) or "none"
    console.print(f"R = {forecast.shared_rank}, D = {counted(forecast.slots, 'slot')}, shared roles: {roles}")
    console.print(_table(forecast))
    for client in forecast.clients:
        console.print(_notes(client), soft_wrap=True)
    for line in forecast.guards:
        console.print(line, soft_wrap=True)
    console.print("Bytes are per round. Nothing is received in the first round.", soft_wrap=True)
    if any(sum(client["basis_bytes"]) for client in forecast.clients):
        each = ", ".join(
            "{} {:,} up, {:,} down".format(c["name"], *c["basis_bytes"]) for c in forecast.clients
        )
        console.print(f"Once, before the first round, at most, in bytes: {each}.", soft_wrap=True)
    whole = ", ".join("{} {:,} up, {:,} down".format(c["name"], *_whole(c)) for c in forecast.clients)
    console.print(f"In the whole run, at most, in bytes: {whole}.", soft_wrap=True)


def _whole(client: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes that a client sends and receives before and in all rounds."""
    once_up, once_down = client["basis_bytes"]
    return once_up + client["bytes_up"] * len(client["bytes_down"]), once_down + sum(client["bytes_down"])


def _table(forecast: Forecast) -> Table:
    table = Table()
    for name in ("client", "family", "task", "rank"):
        table.add_column(name, overflow="fold")
    for name in ("trainable", "bytes up", "bytes down"):
        table.add_column(name, justify="right", no_wrap=True)
    for client in forecast.clients:
        numbers = (client["trainable_parameters"], client["bytes_up"], client["bytes_down"][-1])
        words = (client["name"], client["family"], client["task"], str(client["rank"]))
        table.add_row(*words, *(f"{number:,}" for number in numbers))
    return table


def _notes(client: dict[str, Any]) -> str:
    how = "private classification head"
    if client["kind"] == "causal":
        how = "likelihood of the label words" if client["scorer"] == "label" else f"'{client['scorer']}'"
    lines = [
        f"{client['name']}: {client['model']}, {counted(client['depth'], 'block')}, scored by {how}, "
        f"{client['memory_bytes'] / 1e6:,.0f} MB (weights, gradients and Adam, without activations)",
        "  " + ", ".join(f"{role} × {count}" for role, count in client["roles"].items()),
    ]
    return "\n".join([*lines, *([f"  {client['note']}"] if client["note"] else [])])
