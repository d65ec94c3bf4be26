"""What the report shows of a comparison: its event → rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

from h2tune.events import Event
from h2tune.report.view.coerce import integer, items, number, record, text


class OfClient(Protocol):
    """A row of a comparison, of one client or of the mean over all ("")."""

    @property
    def client(self) -> str: ...


AnyRow = TypeVar("AnyRow", bound=OfClient)


def shown_rows(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Return the rows that people see: the mean over a single client is that client."""
    clients = {row.client for row in rows if row.client}
    return [row for row in rows if row.client or len(clients) != 1]


@dataclass(frozen=True)
class ComparedView:
    """A row of a comparison: a method on a client ("": the mean over clients), over seeds; accuracies are fractions."""

    method: str
    client: str
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    p: float | None
    p_holm: float | None
    bytes_up: float | None
    bytes_down: float | None
    seconds: float | None
    seeds: int | None


@dataclass(frozen=True)
class RecoveredView:
    """What a method recovers of the headroom, pooled − local; accuracies are fractions."""

    method: str
    headroom: float | None
    headroom_low: float | None
    headroom_high: float | None
    share: float | None
    share_low: float | None
    share_high: float | None
    harmed: int | None
    clients: int | None


def compared(event: Event) -> list[ComparedView]:
    """Return the rows of a comparison."""
    rows = []
    for row in map(record, items(event.get("rows"))):
        seeds = row.get("seeds")
        count = len(seeds) if isinstance(seeds, list) else integer(seeds)
        named = {name: text(row.get(name)) for name in ("method", "client")}
        values = {
            f.name: number(row.get(f.name)) for f in fields(ComparedView) if f.name not in (*named, "seeds")
        }
        rows.append(ComparedView(**named, **values, seeds=count))  # type: ignore[arg-type]
    return rows


def recovered(event: Event) -> list[RecoveredView]:
    """Return what each method recovers of the headroom."""
    rows = []
    for row in map(record, items(event.get("recovered"))):
        counts = {name: integer(row.get(name)) for name in ("harmed", "clients")}
        other = [f.name for f in fields(RecoveredView) if f.name not in ("method", *counts)]
        values = {name: number(row.get(name)) for name in other}
        rows.append(RecoveredView(method=text(row.get("method")), **values, **counts))  # type: ignore[arg-type]
    return rows
