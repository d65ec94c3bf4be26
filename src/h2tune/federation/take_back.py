"""Takes rounds of a run back: what came of them is moved aside, and the run goes on from before them.

A taking back is a commit at `taken-back/NNNN`; what it concerns is moved into that folder; then its event is logged.
`complete`, which every start of a run calls, finishes one that was interrupted.

How far one can go back depends on the clients, which keep their private state of their last `KEPT` rounds alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.events import is_taken_back, read_events, round_of_unit
from h2tune.federation.local_engine import KEPT
from h2tune.federation.run_store import RunStore

FOLDER = "taken-back"
MOVED = "moved"
"""Name of the commit that says that everything was moved."""
OUTCOMES = ("adapter", "lora")
"""Folders that a client's last round leaves beside its states."""


def taken_back(store: RunStore) -> tuple[int, ...]:
    """Return the first round of each taking back, in order."""
    return tuple(facts["round"] for _, facts in _all(store))


def take_back(store: RunStore, number: int) -> None:
    """Take back round `number` and all after it, and log that.

    Args:
        store: The run.
        number: A round, from 0.

    Raises:
        H2TuneError: No such round was begun, or a state from before it was removed; then nothing has changed.
    """
    complete(store)
    begun = rounds_begun(store)
    reason = why_not(store, number, begun)
    if reason:
        possible = [str(n) for n in range(begun) if not why_not(store, n, begun)]
        remedy = f"Go on from round {' or '.join(possible)}" if possible else "Start a new run"
        raise H2TuneError(reason, where=str(store.folder), remedy=remedy)
    note(store, number)


def note(store: RunStore, number: int) -> None:
    """Take rounds back without a check, where it is known that one can."""
    path = f"{FOLDER}/{len(taken_back(store)) + 1:04d}"
    store.commit(path, {}, {"round": number, "rounds": rounds_begun(store)})
    complete(store)


def complete(store: RunStore) -> None:
    """Finish a taking back that was interrupted; does nothing otherwise."""
    for path, facts in _all(store):
        if path in store.logged:
            continue
        if store.committed(f"{path}/{MOVED}") is None:
            for place in _after(store.folder, facts["round"]):
                target = store.folder / path / place.relative_to(store.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                place.replace(target)
            store.commit(f"{path}/{MOVED}", {}, {})
        if is_taken_back(store.unlogged, facts["round"]):
            store.put_back()  # before the event that takes it back
        store.logged = {unit for unit in store.logged if not is_taken_back(unit, facts["round"])}
        store.record(path, [{"event": "rounds_taken_back", **facts, "folder": path}])


def rounds_repeated(store: RunStore) -> int:
    """Return how many rounds were taken back in all, each of which is run once more."""
    return sum(max(0, facts["rounds"] - facts["round"]) for _, facts in _all(store))


def rounds_begun(store: RunStore) -> int:
    """Return the number of rounds of which anything is stored or logged."""
    folder, known = store.folder, [round_of_unit(unit) for unit in store.logged]
    rounds = [number + 1 for number in known if number is not None]
    rounds += [_number(place) for place in folder.glob("server/round-*")]
    rounds += [_number(place) + 1 for place in folder.glob("clients/*/state/round-*")]
    return max(rounds, default=0)


def why_not(store: RunStore, number: int, begun: int) -> str:
    """Return why a run cannot go on from before a round; "" if it can.

    Args:
        store: The run.
        number: The round.
        begun: Number of rounds begun.
    """
    if not 0 <= number < begun:
        return f"there is no round {number} to take back; {begun} were begun"
    if number and store.committed(f"server/round-{number:04d}") is None:
        return f"what was shared before round {number} is not stored"
    return without_state(store, number)


def without_state(store: RunStore, number: int) -> str:
    """Return which client no longer has the state from before a round; "" if all have it.

    What clients on other machines keep is derived from the rounds in which they trained.
    """
    trained: dict[str, list[int]] = {}
    for event in read_events(store.events_file) if store.events_file.exists() else ():
        if event["event"] == "client_trained" and event.get("stage") == "trained":
            trained.setdefault(str(event["client"]), []).append(int(event["round"]))
    for client, rounds in sorted(trained.items()):
        last = max((r for r in rounds if r < number), default=None)
        states = f"clients/{client}/state"
        here = (store.folder / states).is_dir()
        kept = (
            store.committed(f"{states}/round-{last or 0:04d}") is not None if here else last in rounds[-KEPT:]
        )
        if last is not None and not kept:
            return (
                f"client '{client}' keeps its last {KEPT} rounds, and has no state of before round {number}"
            )
    return ""


def _all(store: RunStore) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and facts of each taking back, in order."""
    index = 1
    while (commit := store.committed(path := f"{FOLDER}/{index:04d}")) is not None:
        yield path, commit[1]
        index += 1


def _after(folder: Path, number: int) -> Iterator[Path]:
    """Yield what a round and those after it left in a run folder; a server's commit counts the rounds before it."""
    yield from (place for place in folder.glob("server/round-*") if _number(place) > number)
    yield from (place for place in folder.glob("clients/*/state/round-*") if _number(place) >= number)
    yield from (place for name in OUTCOMES for place in folder.glob(f"clients/*/{name}"))
    yield from folder.glob("report.html")


def _number(place: Path) -> int:
    """Return the number of a folder named round-NNNN; −1 if it is none."""
    digits = place.name.removeprefix("round-")
    return int(digits) if digits.isdecimal() else -1
