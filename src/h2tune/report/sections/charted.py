"""Which clients get charts of their own, where there are more than a reader looks at."""

from __future__ import annotations

from collections.abc import Sequence

from h2tune.report import formats
from h2tune.report.view.model import ClientView

MOST = 24
"""Most clients with charts of their own in a section; a chart takes 25 ms and 10 kB."""


def charted(clients: Sequence[ClientView]) -> tuple[Sequence[ClientView], list[str]]:
    """Return the clients that get a chart, in the order given, and a sentence if others do not.

    Of many clients these are the half with the lowest scores at the end and the half with the highest.
    """
    if len(clients) <= MOST:
        return clients, []
    scores = {c.name: score.accuracy for c in clients if (score := c.last("federated")) is not None}
    ordered = sorted((c.name for c in clients), key=lambda name: (scores.get(name, 0.5), name))
    chosen = {*ordered[: MOST // 2], *ordered[-MOST // 2 :]}
    half = formats.count(MOST // 2)
    said = (
        f"Charts are of {MOST} of {formats.count(len(clients))} clients: the {half} with the lowest scores "
    )
    return [c for c in clients if c.name in chosen], [f"{said}at the end and the {half} with the highest."]
