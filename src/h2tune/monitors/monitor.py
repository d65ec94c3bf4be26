"""The interface of what watches a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune.events import Event


class Monitor(ABC):
    """Watches a run on one machine: only `on_event` must be written, the other methods do nothing by default.

    `check` is called before anything is read or trained; then `on_begin`, and `on_end` last, also where the run fails.
    An error that a monitor raises ends the run, which can be resumed.
    """

    def check(self) -> None:  # noqa: B027 - optional to override
        """Check that it can work on this machine, such as that its library is installed.

        Raises:
            H2TuneError: It cannot.
        """

    def on_begin(self, folder: Path, settings: Mapping[str, Any]) -> None:  # noqa: B027 - optional to override
        """Begin to watch.

        Args:
            folder: The run folder; the events of an earlier part of a resumed run are in its `events.jsonl`.
            settings: The content of its `config.toml`.
        """

    def on_total(self, steps: int) -> None:  # noqa: B027 - optional to override
        """The number of optimiser steps that the run will take is known.

        Called before the first step; where clients teach each other, once more when each has taken or declined its
        teacher, as those without one take other steps.

        Args:
            steps: Number of steps, without those that an earlier part of a resumed run has taken.
        """

    def on_reading(self, client: str, done: int, total: int) -> None:  # noqa: B027 - optional to override
        """A client's base model reads the public texts; the first call has `done` = 0, the last `done` = `total`.

        Args:
            client: Name of the client; "" for the public encoder.
            done: Number of texts read.
            total: Number of texts.
        """

    def on_turn(self, stage: str, round_number: int, client: str) -> None:  # noqa: B027 - optional to override
        """A client's round begins.

        Args:
            stage: "trained", or "alone" for the comparison without federation.
            round_number: Number of the round, from 0.
            client: Name of the client.
        """

    def on_step(self, client: str, step: int, phase: str, loss: float) -> None:  # noqa: B027 - optional to override
        """An optimiser step of a client is done.

        Args:
            client: Name of the client.
            step: Number of the step in its round, from 1.
            phase: What it trained: "joint", "shared" or "specific".
            loss: Training loss of the step.
        """

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """An event is recorded; `h2tune.events` describes them all."""

    def on_end(self, finished: bool) -> None:  # noqa: B027 - optional to override
        """The run has ended.

        Args:
            finished: Whether it is complete; else an error or the user stopped it.
        """


class Monitors(Monitor):
    """Several monitors as one.

    Args:
        monitors: They are called in this order.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self.monitors = monitors

    def check(self) -> None:
        for monitor in self.monitors:
            monitor.check()

    def on_begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        for monitor in self.monitors:
            monitor.on_begin(folder, settings)

    def on_total(self, steps: int) -> None:
        for monitor in self.monitors:
            monitor.on_total(steps)

    def on_reading(self, client: str, done: int, total: int) -> None:
        for monitor in self.monitors:
            monitor.on_reading(client, done, total)

    def on_turn(self, stage: str, round_number: int, client: str) -> None:
        for monitor in self.monitors:
            monitor.on_turn(stage, round_number, client)

    def on_step(self, client: str, step: int, phase: str, loss: float) -> None:
        for monitor in self.monitors:
            monitor.on_step(client, step, phase, loss)

    def on_event(self, event: Event) -> None:
        for monitor in self.monitors:
            monitor.on_event(event)

    def on_end(self, finished: bool) -> None:
        for monitor in self.monitors:
            monitor.on_end(finished)
