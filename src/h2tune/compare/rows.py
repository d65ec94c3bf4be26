"""The rows of a comparison, from results by method and seed; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from h2tune.compare.results import ClientResult, RunResult
from h2tune.evaluation.statistics import bootstrap_interval, differences, holm, mean_interval, paired_t_p
from h2tune.seeds import derive

Results = Mapping[str, Mapping[int, RunResult]]
"""Method → seed → result."""

ALL = ""
"""The client of a row that is the mean over clients."""


@dataclass(frozen=True)
class Row:
    """A method on one client, or on the mean over clients. Accuracies are fractions; unknown values are None.

    Args:
        method: Its label.
        client: The client; "" for the mean over clients.
        mean: Mean accuracy over seeds, with its t interval `low` to `high`.
        difference: Mean of the paired differences to the reference over their common seeds, with its t interval.
        bootstrap_low: Lower end of the percentile bootstrap interval of that difference.
        bootstrap_high: Its upper end.
        p: Two-sided p-value of the paired t test.
        p_holm: The same with Holm's correction: for the number of methods on the mean over clients, and for methods ×
            clients on single clients.
        bytes_up: Bytes that a client sends in a run, mean over seeds.
        bytes_down: Bytes that it receives.
        seconds: Its training time in a run.
        seeds: Number of seeds with a result.
        note: How the client takes part, such as why it shares nothing.
    """

    method: str
    client: str
    mean: float
    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    seconds: float = 0.0
    seeds: int = 0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)


def rows_of(
    results: Results, reference: str, clients: Sequence[str], notes: Mapping[tuple[str, str], str], seed: int
) -> list[Row]:
    """Return the rows: the mean over clients first, then each client; methods in their order.

    Args:
        results: Method → seed → result; a method without a result has no row.
        reference: Label of the method to which differences are taken.
        clients: Names of the clients.
        notes: (method, client) → a line on how the client takes part.
        seed: Seed of the bootstrap.
    """
    rows = []
    for client in (ALL, *clients):
        series = {m: s for m in results if (s := _series(results[m], client, clients))}
        for method, values in series.items():
            row = _row(method, client, values, notes.get((method, client), ""))
            if method != reference and reference in series:
                row = _compared(row, values, series[reference], seed)
            rows.append(row)
    return _corrected(rows)


def _series(runs: Mapping[int, RunResult], client: str, clients: Sequence[str]) -> dict[int, ClientResult]:
    """Return a client's results, or the means over clients, by seed; a mean needs results of all clients."""
    if client:
        return {seed: run.clients[client] for seed, run in sorted(runs.items()) if client in run.clients}
    return {
        seed: _mean([run.clients[c] for c in clients])
        for seed, run in sorted(runs.items())
        if set(clients) <= run.clients.keys()
    }


def _mean(of: Sequence[ClientResult]) -> ClientResult:
    return ClientResult(
        fmean(c.accuracy for c in of),
        round(fmean(c.bytes_up for c in of)),
        round(fmean(c.bytes_down for c in of)),
        fmean(c.seconds for c in of),
    )


def _row(method: str, client: str, values: Mapping[int, ClientResult], note: str) -> Row:
    accuracy = mean_interval([v.accuracy for v in values.values()])
    return Row(
        method,
        client,
        accuracy.mean,
        _known(accuracy.low),
        _known(accuracy.high),
        bytes_up=fmean(v.bytes_up for v in values.values()),
        bytes_down=fmean(v.bytes_down for v in values.values()),
        seconds=fmean(v.seconds for v in values.values()),
        seeds=len(values),
        note=note,
    )


def _compared(
    row: Row, mine: Mapping[int, ClientResult], theirs: Mapping[int, ClientResult], seed: int
) -> Row:
    common = sorted(mine.keys() & theirs.keys())
    if not common:
        return row
    gap = differences([mine[s].accuracy for s in common], [theirs[s].accuracy for s in common])
    interval = mean_interval(gap)
    rng = np.random.default_rng(derive(seed, "bootstrap", row.method, row.client))
    drawn = bootstrap_interval(gap, rng=rng)
    return replace(
        row,
        difference=interval.mean,
        difference_low=_known(interval.low),
        difference_high=_known(interval.high),
        bootstrap_low=_known(drawn.low),
        bootstrap_high=_known(drawn.high),
        p=paired_t_p(gap) if len(common) > 1 else None,
    )


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Add Holm's correction: the means over clients are one family of tests, single clients another."""
    corrected = list(rows)
    for mean in (True, False):
        family = [i for i, row in enumerate(rows) if (row.client == ALL) == mean and row.p is not None]
        for i, p in zip(family, holm([rows[i].p or 0.0 for i in family]), strict=True):
            corrected[i] = replace(rows[i], p_holm=p)
    return corrected


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
