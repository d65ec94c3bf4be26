"""A member goes back with its coordinator, which took rounds back. Knows no flwr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.run_store import RunStore
from h2tune.federation.take_back import complete, note, rounds_repeated, taken_back, without_state
from h2tune.flower.member.requests import RoundRequest
from h2tune.flower.policy import Policy

MOST = 1000
"""The most takings back of a run."""
MOST_ROUNDS = 10**9


def rounds_of(head: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the first round of each taking back that a message names.

    Raises:
        H2TuneError: They are malformed.
    """
    rounds = head.get("taken_back", [])
    if not isinstance(rounds, list) or len(rounds) > MOST:
        raise H2TuneError("the rounds that were taken back are not a list")
    if not all(type(number) is int and 0 <= number < MOST_ROUNDS for number in rounds):
        raise H2TuneError("the rounds that were taken back are not numbers of rounds")
    return tuple(rounds)


def go_back(store: RunStore, policy: Policy, request: RoundRequest) -> None:
    """Take back the rounds that a message says were taken back, unless that was done before.

    Args:
        store: The member's run.
        policy: What the member agrees to; a round that is run again counts as a further one.
        request: The message.

    Raises:
        H2TuneError: The message is from before rounds were taken back here, the member no longer has the state to go
            back to, or its policy or the run's noise forbid it.
    """
    complete(store)
    before, rounds = taken_back(store), tuple(request.taken_back)
    if rounds[: len(before)] != before:
        raise H2TuneError("the message is from before rounds were taken back")
    if new := rounds[len(before) :]:
        if request.settings.privacy.noise != "none":
            raise H2TuneError("rounds with noise cannot be taken back: their ε is spent")
        if lacking := without_state(store, min(new)):
            raise H2TuneError(f"it cannot go back: {lacking}; take back fewer rounds, or start a new run")
        for number in new:
            note(store, number)
    total, most = request.settings.server.rounds + rounds_repeated(store), policy.rounds
    if most is not None and total > most:
        raise H2TuneError(
            f"this member's policy refuses it: {total} rounds with those that are run again are more than {most} "
            "(policy.rounds)"
        )
