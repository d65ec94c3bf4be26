"""Progress and results of a run on the terminal: a progress bar where there is a terminal, and lines of text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from h2tune.errors import counted
from h2tune.monitors.lines import line_of, reading_line
from h2tune.monitors.monitor import Monitor


def terminal(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: brackets in a path are not markup, and `:name:` is no emoji."""
    return Console(markup=False, highlight=False, emoji=False, stderr=stderr)


def loading_line(clients: int) -> str:
    """Return the first line of a run, before anything heavy is imported."""
    return f"loading libraries, models and data of {counted(clients, 'client')}"


class TerminalDisplay(Monitor):
    """Shows the round, client, phase, loss and remaining time.

    Args:
        console: Console to print on, as `terminal` returns it.
        brief: Print only warnings and failures.
    """

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self.console, self.current, self.brief = console, "", brief
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None, unit="steps")
        self.reading = self.bar.add_task("", total=None, unit="texts", visible=False)

    def __enter__(self) -> TerminalDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_total(self, steps: int) -> None:
        """Show how many steps there are."""
        self.bar.update(self.task, total=steps)

    def on_reading(self, client: str, done: int, total: int) -> None:
        """Show how far a client's model has read the public texts; where there is no bar, that it began."""
        line = reading_line(client, total)
        if done == 0:
            self.bar.reset(self.reading, total=total, description=line)
            if self.bar.disable and not self.brief:
                self.console.print(f"  {line}", soft_wrap=True)
        self.bar.update(self.reading, completed=done, visible=done < total)

    def on_turn(self, stage: str, round_number: int, client: str) -> None:
        """Show which client's round begins."""
        alone = " alone" if stage == "alone" else ""
        self.current = f"round {round_number + 1} · {client}{alone}"
        self.bar.update(self.task, description=self.current)

    def on_step(self, client: str, step: int, phase: str, loss: float) -> None:
        """Show an optimiser step."""
        self.bar.update(self.task, advance=1, description=f"{self.current} · {phase} · loss {loss:.3f}")

    def on_event(self, event: dict[str, Any]) -> None:
        """Print a line for an event, if it is one that a line is printed for."""
        line = line_of(event)
        if line and (not self.brief or event["event"] in ("warning", "client_failed")):
            self.console.print(line, soft_wrap=True)


def results_table(table: list[dict[str, Any]]) -> Table:
    """Return the results of a run: each client's accuracy (or other measure) before training, alone and federated."""
    shown = Table(title="accuracy")
    shown.add_column("client", overflow="fold")
    for name in ("majority", "before", "alone", "federated"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table:
        measure = f" ({row['measure']})" if "measure" in row else ""
        cells = [
            f"{row[k]:.3f}" if row[k] is not None else "–"
            for k in ("majority", "before", "alone", "federated")
        ]
        shown.add_row(row["client"] + measure, *cells)
    return shown
