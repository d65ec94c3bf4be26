"""The common coordinates of clients' views, and how far each client's view agrees with them and with the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from h2tune.events import Event
from h2tune.federation.checks import warning
from h2tune.federation.run_store import RunStore
from h2tune.functional.frames import agreement, common_coordinates, typical_agreements

CHANCE = 0.02
"""Up to this an agreement is by chance; random views of 1,600 texts have 0 ± 0.001, two MiniLMs 0.34."""


def agreed(views: Mapping[str, Tensor], size: int, hostile: int) -> tuple[Tensor, dict[str, Any]]:
    """Return the coordinates Z (n, size) of clients' views, and how each agrees with them and with the others.

    Args:
        views: By client; the only one of a public encoder has no name.
        size: Number of coordinates.
        hostile: Number f of views that are left out: those which agree least with the others. Of 2 f + 1 views or more
            the honest ones agree with one another, and f views that are all alike do not decide.
    """
    names = sorted(views)
    typical = dict(zip(names, typical_agreements([views[name] for name in names]), strict=True))
    left_out = sorted(names, key=lambda name: typical[name])[:hostile]
    z = common_coordinates([views[name] for name in names if name not in left_out], size)
    by_client = {
        name: {"agreement": round(agreement(views[name], z), 4), "with_others": round(typical[name], 4)}
        for name in names
    }
    return z, {"agreements": by_client, "left_out": left_out}


def agreement_of(store: RunStore, client: str) -> tuple[dict[str, Any], list[Event]]:
    """Return what a client's event says of its view, and a warning where it agrees with nobody's; empty without one."""
    _, facts = store.committed("server/basis") or ({}, {})
    found = facts.get("agreements", {}).get(client)
    if found is None:
        return {}, []
    left_out = client in facts.get("left_out", [])
    warnings = []
    if min(found.values()) <= CHANCE:
        message = "its view of the public texts agrees with the others' no more than a random one"
        warnings.append(warning(client, -1, "view_at_chance", message))
    return {**found, **({"left_out": True} if left_out else {})}, warnings
