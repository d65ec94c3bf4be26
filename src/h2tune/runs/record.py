"""The first and the last event of a run, the same on one machine and across machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from h2tune._version import __version__
from h2tune.config import FederationConfig
from h2tune.events import Event
from h2tune.federation.strategy import Strategy
from h2tune.runs.environment import environment


def run_started(
    federation: FederationConfig,
    strategy: Strategy[Any],
    size: int,
    slots: int,
    clients: Sequence[Mapping[str, Any]],
) -> Event:
    """Return a run's first event: its settings and its clients.

    Args:
        federation: The federation file.
        strategy: The method.
        size: R.
        slots: D.
        clients: Facts of each client, sorted by name.
    """
    return {
        "event": "run_started",
        "name": federation.name,
        "version": __version__,
        "seed": federation.seed,
        "strategy": strategy.name,
        "rounds": federation.server.rounds,
        "shared_rank": size,
        "slots": slots,
        "roles": list(strategy.roles),
        "alternation": federation.experimental.alternation,
        "mask": federation.experimental.mask,
        "wire_dtype": federation.server.wire_dtype,
        "environment": environment(),
        "clients": list(clients),
    }


def accuracy_table(events: Sequence[Event], majorities: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each client's accuracy before training, alone (or None), federated, and of the majority label.

    Args:
        events: The run's events; the last evaluation of a stage counts, but the first one before training.
        majorities: Client → accuracy of its majority label.
    """
    last: dict[tuple[Any, Any], Any] = {}
    measures = {e.get("client"): e["measure"] for e in events if "measure" in e}
    for event in events:
        if event["event"] == "evaluated":
            key = (event.get("client"), event.get("stage"))
            if event.get("stage") != "before" or key not in last:
                last[key] = event.get("accuracy")
    return [
        {
            "client": name,
            "before": last.get((name, "before")),
            "alone": last.get((name, "alone")),
            "federated": last.get((name, "trained")),
            "majority": majority,
            **({"measure": measures[name]} if name in measures else {}),
        }
        for name, majority in majorities.items()
    ]
