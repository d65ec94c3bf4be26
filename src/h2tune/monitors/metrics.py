"""Numbers of a run by round, for trackers of experiments: of the federation, and of each client."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from h2tune.events import Event, read_events
from h2tune.monitors.monitor import Monitor

Numbers = dict[str, float]
"""Name of a metric, such as `clients/films/accuracy`, → value."""
FACTS = {"change": "change", "norm": "norm"}
"""Key of an aggregation's event → name of the metric."""


class Metrics:
    """The metrics of each event, with what they sum up.

    Round n, counted from 1, is step n; what happens before the first round is step 0. Metrics of training alone are
    below `alone/`.
    """

    def __init__(self) -> None:
        self._bytes: dict[tuple[str, str], int] = defaultdict(int)
        self._scores: dict[int, dict[str, Mapping[str, Any]]] = defaultdict(dict)

    def of(self, event: Event) -> tuple[int, Numbers]:
        """Return the step of an event and its metrics; {} if it has none."""
        step = 1 + int(event.get("round", -1))
        match event["event"]:
            case "evaluated":
                return step, self._evaluated(event, step)
            case "client_trained":
                return step, self._trained(event)
            case "basis_agreed" | "lesson_prepared":
                return 0, self._sent(f"clients/{event['client']}", event)
            case "aggregated" if event["stage"] == "trained":
                return step, self._aggregated(event, step)
        return step, {}

    def _evaluated(self, event: Event, step: int) -> Numbers:
        if event["stage"] != "alone":
            self._scores[step][event["client"]] = event  # a round that was taken back is scored again
        return {f"{_path(event)}/{name}": event[name] for name in ("accuracy", "loss")}

    def _trained(self, event: Event) -> Numbers:
        path = _path(event)
        losses = [entry["loss"] for entry in event.get("losses", ())]
        numbers = {f"{path}/train_loss": fmean(losses)} if losses else {}
        return numbers if event["stage"] == "alone" else numbers | self._sent(path, event)

    def _sent(self, path: str, event: Event) -> Numbers:
        """Return the bytes that a client sent and received until now."""
        for name in ("bytes_up", "bytes_down"):
            self._bytes[path, name] += event[name]
        return {f"{path}/{name}": float(self._bytes[path, name]) for name in ("bytes_up", "bytes_down")}

    def _aggregated(self, event: Event, step: int) -> Numbers:
        numbers = {f"federation/{name}": event[key] for key, name in FACTS.items()}
        numbers["federation/clients"] = float(len(event["clients"]))
        for name in ("bytes_up", "bytes_down"):
            numbers[f"federation/{name}"] = float(
                sum(n for (_, key), n in self._bytes.items() if key == name)
            )
        for name in ("accuracy", "loss"):
            if scores := [score[name] for score in self._scores[step].values()]:
                numbers[f"federation/{name}"] = fmean(scores)
        if spent := event.get("privacy"):
            numbers["federation/epsilon"] = spent["epsilon"]
        return numbers


def _path(event: Event) -> str:
    alone = "alone" if event["stage"] == "alone" else "clients"
    return f"{alone}/{event['client']}"


class Tracker(Monitor):
    """A monitor that writes metrics to a tracker of experiments: one run, with the round as step."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def on_begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        events = folder / "events.jsonl"
        if events.exists():  # of a resumed run: they are written already, and what they sum up goes on
            for event in read_events(events):
                self.metrics.of(event)
        self.open(folder, settings)

    def on_event(self, event: Event) -> None:
        step, numbers = self.metrics.of(event)
        if numbers:
            self.write(step, numbers)

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open the tracker's run; arguments as in `on_begin`."""

    @abstractmethod
    def write(self, step: int, numbers: Numbers) -> None:
        """Write the metrics of an event."""
