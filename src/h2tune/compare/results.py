"""The results of one run, from its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from h2tune.events import Event
from h2tune.report.view.traffic import Traffic, traffic_by_client


@dataclass(frozen=True)
class ClientResult:
    """A client at the end of a run.

    Args:
        accuracy: Score on the scored split after the last round, 0–1.
        bytes_up: Bytes sent before the first round and in all rounds.
        bytes_down: Bytes received before the first round and in all rounds.
        seconds: Training time in seconds, without loading, scoring and saving.
        measure: What it is scored by; "" is accuracy.
        loss: Mean loss on the scored split after the last round, in nats per example; None if unknown.
    """

    accuracy: float
    bytes_up: int
    bytes_down: int
    seconds: float
    measure: str = ""
    loss: float | None = None


@dataclass(frozen=True)
class RunResult:
    """One seed of one method.

    Args:
        clients: By name, without clients that have no score after the last round.
        problems: One line for each client that failed in a round or has no score.
    """

    clients: dict[str, ClientResult]
    problems: tuple[str, ...] = ()


def is_finished(events: Sequence[Event]) -> bool:
    """Return whether the events are those of a finished run that was not resumed since."""
    return bool(events) and events[-1]["event"] == "run_finished"


def read_result(events: Sequence[Event], stage: str) -> RunResult:
    """Return the results of a finished run in a stage, "trained" or "alone"."""
    started = next(event for event in events if event["event"] == "run_started")
    last = next(e["rounds"] for e in reversed(events) if e["event"] == "run_finished") - 1
    clients, problems, traffic = {}, [], traffic_by_client(events)
    for name in sorted(client["name"] for client in started["clients"]):
        mine = [e for e in events if e.get("client") == name and _stage(e) == stage]
        problems += [
            f"{name} failed in round {e['round'] + 1}: {e['reason']}"
            for e in mine
            if e["event"] == "client_failed"
        ]
        scores = {e["round"]: e for e in mine if e["event"] == "evaluated"}
        if not scores:
            problems.append(f"{name} has no score")
            continue
        if max(scores) < last:
            problems.append(f"{name} was last scored in round {max(scores) + 1} of {last + 1}")
        trained = list({e["round"]: e for e in mine if e["event"] == "client_trained"}.values())
        score = scores[max(scores)]
        up, down = traffic.get(name, Traffic()).total
        clients[name] = ClientResult(
            accuracy=score["accuracy"],
            # a client alone sends nothing to others: messages to its own server do not count
            bytes_up=0 if stage == "alone" else up,
            bytes_down=0 if stage == "alone" else down,
            seconds=sum(e["seconds"].get("train", 0.0) for e in trained),
            measure=score.get("measure", ""),
            loss=score.get("loss"),
        )
    return RunResult(clients, tuple(problems))


def _stage(event: Event) -> str:
    if "stage" in event:
        return str(event["stage"])
    return "alone" if "/alone/" in str(event.get("unit", "")) else "trained"
