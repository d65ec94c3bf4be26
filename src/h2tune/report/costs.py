"""Charts of what a run costs: bytes and seconds; view model → figures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from h2tune.report import formats
from h2tune.report.parts import Figure, figure
from h2tune.report.plots import bars
from h2tune.report.view import Client, View

TIMES = ("load", "train", "evaluate", "save", "aggregate")
"""What takes time in a round, in order."""


def traffic(view: View) -> list[Figure]:
    """Return the bytes that each client sent and received in each round."""
    clients = [c for c in view.clients if c.trained]
    high = max((t.bytes_up + t.bytes_down for c in clients for t in c.trained.values()), default=0)
    found, rounds = [], range(view.rounds)
    for i, client in enumerate(clients):
        up = [float(client.trained[r].bytes_up) if r in client.trained else 0.0 for r in rounds]
        down = [float(client.trained[r].bytes_down) if r in client.trained else 0.0 for r in rounds]
        note = f"sent {formats.size(sum(up))}, received {formats.size(sum(down))}"
        stacks = [("sent", "s0", up), ("received", "s1", down)]
        found.append(_bars(f"bytes-{i}", f"Bytes of {client.name} by round", client.name, note, stacks,
                           "bytes", formats.size, high))  # fmt: skip
    return found


def timing(view: View) -> list[Figure]:
    """Return the seconds of each round: of the whole federation, and of each client."""
    clients = [c for c in view.clients if any(t.seconds for t in c.trained.values())]
    names = [
        *TIMES,
        *sorted({k for c in clients for t in c.trained.values() for k in t.seconds} - set(TIMES)),
    ]
    rounds = range(view.rounds)

    def spent(some: Sequence[Client], name: str) -> list[float]:
        return [
            sum(max(c.trained[r].seconds.get(name, 0), 0) for c in some if r in c.trained) for r in rounds
        ]

    found = []
    for i, (heading, some) in enumerate(
        [("all clients and the server", clients), *((c.name, [c]) for c in clients)]
    ):
        stacks = [(name, f"t{k}", spent(some, name)) for k, name in enumerate(names)]
        if i == 0:
            server = [view.aggregates[r].seconds or 0.0 if r in view.aggregates else 0.0 for r in rounds]
            stacks[4] = (
                "aggregate",
                "t4",
                [max(a + b, 0) for a, b in zip(stacks[4][2], server, strict=True)],
            )
        used = [stack for stack in stacks if any(stack[2])]
        note = ", ".join(f"{name} {formats.duration(sum(values))}" for name, _, values in used)
        if used and (i == 0 or len(clients) > 1):
            found.append(_bars(f"seconds-{i}", f"Time of {heading} by round", heading, note, used,
                               "time", _tick_seconds, None))  # fmt: skip
    return found


def _tick_seconds(value: float) -> str:
    return (
        "0"
        if value == 0
        else f"{formats.number(value, 2)}{formats.SPACE}s"
        if value < 120
        else formats.duration(value)
    )


def _bars(
    key: str,
    title: str,
    heading: str,
    note: str,
    stacks: Sequence[tuple[str, str, Sequence[float]]],
    label: str,
    form: Callable[[float], str],
    high: float | None,
) -> Figure:
    names = [str(i + 1) for i in range(len(stacks[0][2]))]
    svg = bars(key, title, note, names, stacks, labels=("round", label), form=form, high=high)
    return figure(heading, svg, note)
