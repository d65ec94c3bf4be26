"""Progress and results of a run on the terminal: a progress bar where there is a terminal, and lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from h2tune.config import FederationConfig
from h2tune.errors import counted
from h2tune.training.schedule import optimiser_steps

if TYPE_CHECKING:
    from h2tune.training.terms import Progress as StepProgress


def terminal() -> Console:
    """Return a console that prints text as it is: brackets in a path are not markup, and `:name:` is no emoji."""
    return Console(markup=False, highlight=False, emoji=False)


LEAST_COVERED = 0.7
"""How much of a client's own texts the public ones covered at least where a teacher was measured."""


class TerminalDisplay:
    """Shows the round, client, phase, loss and remaining time.

    Args:
        console: Console to print on, as `terminal` returns it.
        steps: Optimiser steps of the whole run, for the remaining time.
        brief: Print only warnings and failures.
    """

    def __init__(self, console: Console, steps: int, *, brief: bool = False) -> None:
        self.console, self.current, self.brief = console, "", brief
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps", markup=False),
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
        """Show which client's round begins."""
        alone = " alone" if stage == "alone" else ""
        self.current = f"round {round_number + 1} · {client}{alone}"
        self.bar.update(self.task, description=self.current)

    def progress(self, client: str) -> StepProgress:
        """Return a callback that shows each optimiser step."""

        def step(number: int, phase: str, loss: float) -> None:
            self.bar.update(self.task, advance=1, description=f"{self.current} · {phase} · loss {loss:.3f}")
            task = self.bar.tasks[0]
            if (
                task.total is not None and task.completed > task.total
            ):  # a client without a teacher takes more
                self.bar.update(self.task, total=task.completed)

        return step

    def notice(self, event: dict[str, Any]) -> None:
        """Print a line for an event, if it is one that a line is printed for."""
        line = _line(event)
        if line and (not self.brief or event["event"] in ("warning", "client_failed")):
            self.console.print(line, soft_wrap=True)


def _line(event: dict[str, Any]) -> str:
    kind, client = event["event"], event.get("client", "")
    if kind == "run_started":
        clients = ", ".join(
            f"{c['name']} ({c['family']}, rank {c['rank']}, {c['task']})" for c in event["clients"]
        )
        lines = [f"{event['name']}: {counted(event['rounds'], 'round')}, {clients}"]
        for c in event["clients"]:
            if unused := c.get("unused"):
                used = f"{c['examples']['train']:,} examples to train on (data.train)"
                lines.append(f"  {c['name']}: {used}; {unused:,} more are not used")
            if repeated := c.get("repeated"):
                lines.append(f"  {c['name']}: {repeated:,} examples repeat a prompt and do not count")
        return "\n".join(lines)
    if kind == "basis_agreed":
        return f"  {client} · basis computed from public texts · {event['bytes_up']:,} bytes up, once"
    if kind == "lesson_prepared":
        return f"  {client} · {_lesson(event)}"
    if kind == "evaluated":
        when = "before" if event["round"] < 0 else f"round {event['round'] + 1}"
        alone = " alone" if event["stage"] == "alone" else ""
        return f"  {client}{alone} · {when} · accuracy {event['accuracy']:.3f} · loss {event['loss']:.3f}"
    if kind == "aggregated" and event.get("stage") == "trained":
        noise = event.get("privacy")
        spent = f" · ε {noise['epsilon']:.3g} at δ {noise['delta']:g}" if noise else ""
        clients = counted(len(event["clients"]), "client")
        return f"round {event['round'] + 1} aggregated · {clients} · {event['seconds']:.1f} s{spent}"
    if kind == "client_failed":
        return f"  {client} failed in round {event['round'] + 1}: {event['reason']}"
    if kind == "warning":
        prefix = f"{client}, " if client else ""
        return f"  warning: {prefix}round {event['round'] + 1}: {event['message']}"
    return ""


def _lesson(event: dict[str, Any]) -> str:
    """Return what the federation is worth to a client on its own labels, before it trains."""
    if not event["taken"] and "own_right" not in event:
        return f"trains by itself: {event.get('reason') or 'it has no teacher'}"
    parts = ["takes a teacher" if event["taken"] else "declines the teacher, and trains by itself"]
    if "own_right" in event:
        right, own = event["peers_right"] * 100, event["own_right"] * 100
        parts.append(f"right on {right:.0f} % of its own labels, its own head on {own:.0f} %")
    if "covered" in event:
        far = ", less than was ever measured: see basis.texts" if event["covered"] < LEAST_COVERED else ""
        parts.append(f"public texts cover {event['covered']:.2f} of its texts{far}")
    return " · ".join(parts)


def total_steps(federation: FederationConfig) -> int:
    """Return the optimiser steps of a run in which every client trains in every round."""
    train, later, experimental = federation.train, federation.server.rounds - 1, federation.experimental
    alternation = experimental.alternation if federation.server.strategy == "h2tune" else "joint"
    first = sum(client.local_steps or train.local_steps for client in federation.client)
    others = optimiser_steps(first, alternation) * later
    if not experimental.alone:
        return first + others
    if federation.teaching == "none":  # the first round is the same
        return first + 2 * others
    own_rows = train.batch_size + experimental.public_batch
    return first + others + (first + first * later) * own_rows // train.batch_size


def results_table(table: list[dict[str, Any]]) -> Table:
    """Return the results of a run: each client's accuracy before training, alone, and federated."""
    shown = Table("client", "majority", "before", "alone", "federated", title="accuracy")
    for row in table:
        cells = [
            f"{row[k]:.3f}" if row[k] is not None else "–"
            for k in ("majority", "before", "alone", "federated")
        ]
        shown.add_row(row["client"], *cells)
    return shown
