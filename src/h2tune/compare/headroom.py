"""What there is to gain from others' labels, and the share of it that each method recovers; pure.

The headroom is `pooled` − `local`: the gain of training on the labels of all clients that have the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from h2tune.compare.results import RunResult
from h2tune.compare.rows import Results
from h2tune.evaluation.statistics import mean_interval

LOCAL, POOLED = "local", "pooled"
HARM = 0.01
"""Accuracy by which a client must be worse than by itself to count as harmed."""


@dataclass(frozen=True)
class Recovered:
    """The share of the headroom that one method recovers. Accuracies are fractions; unknown values are None.

    Args:
        method: Its label.
        headroom: Mean of pooled − local over seeds and clients, with its t interval.
        share: The method's mean gain over local, as a share of the headroom.
        share_low: Lower end of its 95 % interval by Fieller's theorem (1954); None where the headroom's own interval
            reaches zero.
        share_high: Upper end.
        harmed: Number of clients whose mean over all seeds of the method and of local is more than a point below local.
        clients: Number of clients.
    """

    method: str
    headroom: float
    headroom_low: float | None
    headroom_high: float | None
    share: float | None
    share_low: float | None
    share_high: float | None
    harmed: int
    clients: int

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)


def recovered(
    results: Results, clients: Sequence[str], local: str = LOCAL, pooled: str = POOLED
) -> list[Recovered]:
    """Return the share of the headroom that each method recovers; [] without local and pooled training.

    Args:
        results: Method → seed → result.
        clients: Names of the clients.
        local: The method that trains every client by itself, such as `local+train.local_steps=80`.
        pooled: The method that trains on the labels of all clients.
    """
    if local not in results or pooled not in results:
        return []
    found = []
    for method in results:
        if method in (local, pooled):
            continue
        base, gain, room = results[local], results[method], results[pooled]
        if seeds := _common([gain, base, room], clients):
            gains, rooms = _gains(gain, base, seeds, clients), _gains(room, base, seeds, clients)
            everywhere = _gains(gain, base, _common([gain, base], clients), clients)
            found.append(_recovered(method, gains, rooms, everywhere))
    return found


def _common(methods: Sequence[Mapping[int, RunResult]], clients: Sequence[str]) -> list[int]:
    """Return the seeds with which all methods have a result of every client."""
    first, wanted = methods[0], set(clients)
    return [
        s for s in sorted(first) if all(s in runs and wanted <= runs[s].clients.keys() for runs in methods)
    ]


def _gains(
    runs: Mapping[int, RunResult], base: Mapping[int, RunResult], seeds: Sequence[int], clients: Sequence[str]
) -> list[list[float]]:
    """Return how far each client's accuracy is above that of other runs, seed by seed."""
    return [[runs[s].clients[c].accuracy - base[s].clients[c].accuracy for c in clients] for s in seeds]


def _recovered(
    method: str,
    gains: Sequence[Sequence[float]],
    rooms: Sequence[Sequence[float]],
    everywhere: Sequence[Sequence[float]],
) -> Recovered:
    gain, room = [fmean(each) for each in gains], [fmean(each) for each in rooms]
    interval, several = mean_interval(room), len(gains) > 1
    low, high = fieller(gain, room) if several else (None, None)
    by_client = [fmean(each) for each in zip(*everywhere, strict=True)]
    return Recovered(
        method,
        interval.mean,
        interval.low if several else None,
        interval.high if several else None,
        fmean(gain) / interval.mean if interval.mean > 0 else None,
        low,
        high,
        sum(mean < -HARM for mean in by_client),
        len(by_client),
    )


def fieller(gain: Sequence[float], room: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of mean(gain) / mean(room) of paired values, by Fieller's theorem.

    All θ for which the t test does not reject mean(gain − θ room) = 0. It is bounded only where the mean of `room`
    differs from zero; (None, None) elsewhere.
    """
    from scipy.stats import t  # takes a second to import

    n = len(gain)
    critical = float(t.ppf(0.975, n - 1)) ** 2 / n
    g, h = fmean(gain), fmean(room)
    covariance = sum((a - g) * (b - h) for a, b in zip(gain, room, strict=True)) / (n - 1)
    a = h * h - critical * stdev(room) ** 2
    b = g * h - critical * covariance
    c = g * g - critical * stdev(gain) ** 2
    root = b * b - a * c
    if a <= 0 or root < 0:
        return None, None
    return (b - root**0.5) / a, (b + root**0.5) / a
