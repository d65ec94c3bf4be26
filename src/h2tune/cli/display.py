"""What a run looks like on the terminal: a progress bar where there is one, lines where there is none."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from h2tune.config import FederationConfig
from h2tune.training.schedule import optimiser_steps
from h2tune.training.terms import Progress as StepProgress


class TerminalDisplay:
    """Shows rounds, clients, phases, losses and the time left.

    Args:
        console: Where to write.
        steps: Optimiser steps of the whole run, for the time left.
        brief: Whether lines are written for what went wrong alone.
    """

    def __init__(self, console: Console, steps: int, *, brief: bool = False) -> None:
        self.console, self.where, self.brief = console, "", brief
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=steps)

    def __enter__(self) -> TerminalDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def starting(self, stage: str, round_number: int, client: str) -> None:
        """Say whose round begins."""
        alone = " alone" if stage == "alone" else ""
        self.where = f"round {round_number + 1} · {client}{alone}"
        self.bar.update(self.task, description=self.where)

    def progress(self, client: str) -> StepProgress:
        """Return what shows each optimiser step."""

        def step(number: int, phase: str, loss: float) -> None:
            self.bar.update(self.task, advance=1, description=f"{self.where} · {phase} · loss {loss:.3f}")

        return step

    def notice(self, event: dict[str, Any]) -> None:
        """Write one line for an event that a reader wants to see at once."""
        line = _line(event)
        if line and (not self.brief or event["event"] in ("warning", "client_failed")):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(event: dict[str, Any]) -> str:
    kind, client = event["event"], event.get("client", "")
    if kind == "run_started":
        members = ", ".join(
            f"{c['name']} ({c['family']}, rank {c['rank']}, {c['task']})" for c in event["clients"]
        )
        return f"{event['name']}: {event['rounds']} rounds, {members}"
    if kind == "basis_agreed":
        return f"  {client} · basis agreed on public texts · {event['bytes_up']:,} bytes up, once"
    if kind == "evaluated":
        when = "before" if event["round"] < 0 else f"round {event['round'] + 1}"
        alone = " alone" if event["stage"] == "alone" else ""
        return f"  {client}{alone} · {when} · accuracy {event['accuracy']:.3f} · loss {event['loss']:.3f}"
    if kind == "aggregated" and event.get("stage") == "trained":
        noise = event.get("privacy")
        spent = f" · ε {noise['epsilon']:.3g} at δ {noise['delta']:g}" if noise else ""
        clients = f"{len(event['clients'])} clients · {event['seconds']:.1f} s"
        return f"round {event['round'] + 1} aggregated · {clients}{spent}"
    if kind == "client_failed":
        return f"  {client} failed in round {event['round'] + 1}: {event['reason']}"
    if kind == "warning":
        who = f"{client}, " if client else ""
        return f"  warning: {who}round {event['round'] + 1}: {event['message']}"
    return ""


def total_steps(federation: FederationConfig) -> int:
    """Return the optimiser steps of a run in which every client takes part in every round."""
    train, later = federation.train, federation.server.rounds - 1
    alternation = federation.experimental.alternation if federation.server.strategy == "h2tune" else "joint"
    first = sum(client.local_steps or train.local_steps for client in federation.client)
    others = optimiser_steps(first, alternation) * later
    return first + others * (2 if federation.experimental.alone else 1)


def results_table(table: list[dict[str, Any]]) -> Table:
    """Return the table of a run: per client its accuracy before, alone, and federated."""
    shown = Table("client", "majority", "before", "alone", "federated", title="accuracy")
    for row in table:
        cells = [
            f"{row[k]:.3f}" if row[k] is not None else "–"
            for k in ("majority", "before", "alone", "federated")
        ]
        shown.add_row(row["client"], *cells)
    return shown
