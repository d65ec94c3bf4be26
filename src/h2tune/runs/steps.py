"""How many optimiser steps a run takes, for progress bars."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from h2tune.config import FederationConfig
from h2tune.events import Event
from h2tune.federation.local_client import LocalClient
from h2tune.runs.build import build_strategy
from h2tune.runs.plan import Plan
from h2tune.training.schedule import optimiser_steps


def total_steps(
    plan: Plan, rounds: Sequence[Collection[str]], untaught: Collection[str], reused: Collection[str]
) -> int:
    """Return the optimiser steps of a whole run, federated and alone.

    Args:
        plan: The run.
        rounds: Names of the clients that train, by round.
        untaught: Where clients teach each other, names of those that take no teacher.
        reused: As `first_rounds_reused` returns them.
    """
    total = 0
    for client in plan.clients:
        count = sum(client.name in chosen for chosen in rounds)
        if count:
            total += _steps_of(plan.federation, client, count, taught=client.name not in untaught)
        if client.name in reused and client.name in rounds[0]:
            total -= _alone_once(plan.federation, client)
    return total


def first_rounds_reused(plan: Plan, untaught: Collection[str]) -> set[str]:
    """Return names of clients whose first round alone is that of the federation: see `LocalEngine`."""
    if not plan.federation.experimental.alone:
        return set()
    one, found = plan.federation.of_one(), set()
    for enrolment, client in zip(plan.enrolments, plan.clients, strict=True):
        if plan.federation.teaching != "none" and client.name not in untaught:
            continue
        alone = build_strategy(one, [enrolment], plan.shared_rank, plan.slots)
        if alone.upload_spec(client.name, 0) == plan.strategy.upload_spec(client.name, 0):
            found.add(client.name)
    return found


def steps_done(events: Iterable[Event], reused: Collection[str]) -> int:
    """Return the steps in a run's events; a first round that was reused was trained once."""
    return sum(
        event["steps"]
        for event in events
        if event["event"] == "client_trained"
        and not (event["stage"] == "alone" and event["round"] == 0 and event["client"] in reused)
    )


def _steps_of(federation: FederationConfig, client: LocalClient, rounds: int, *, taught: bool) -> int:
    """Return the steps of a client in one round or more, and alone in as many."""
    once = _alone_once(federation, client)
    h2tune = federation.server.strategy == "h2tune"
    alternation = federation.experimental.alternation if h2tune else "joint"
    if federation.teaching == "none":
        both = 2 if federation.experimental.alone else 1
        return both * (once + (rounds - 1) * optimiser_steps(once, alternation))
    alone = rounds * once if federation.experimental.alone else 0
    if not taught:
        return alone + rounds * once
    first = client.training.with_teacher(len(client.splits.train)).local_steps
    return alone + first + (rounds - 1) * optimiser_steps(first, alternation)


def _alone_once(federation: FederationConfig, client: LocalClient) -> int:
    """Return the steps of a client's first round alone; 0 if it has no labels to train on."""
    if not client.splits.train:
        return 0
    training = client.training
    return (training if federation.teaching == "none" else training.without_teacher()).local_steps
