"""A progress bar and lines of text, in a notebook and in a script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm as plain
from tqdm.auto import tqdm

from h2tune.events import Event
from h2tune.monitors.lines import line_of, reading_line
from h2tune.monitors.monitor import Monitor


class Progress(Monitor):
    """Shows the round, client, phase and loss in tqdm's bar, a widget in notebooks, and a line for each result."""

    def on_begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.bar: Any = tqdm(unit="step", leave=False)

    def on_total(self, steps: int) -> None:
        self.bar.reset(total=steps)  # a notebook's bar takes another total in no other way

    def on_reading(self, client: str, done: int, total: int) -> None:
        self.bar.set_description(f"{reading_line(client, total)}, {done} done" if done < total else "")

    def on_turn(self, stage: str, round_number: int, client: str) -> None:
        self.bar.set_description(f"round {round_number + 1} · {client}{' alone' if stage == 'alone' else ''}")

    def on_step(self, client: str, step: int, phase: str, loss: float) -> None:
        self.bar.set_postfix_str(f"{phase}, loss {loss:.3f}", refresh=False)
        self.bar.update()

    def on_event(self, event: Event) -> None:
        if line := line_of(event):
            plain.write(line)

    def on_end(self, finished: bool) -> None:
        self.bar.close()
