"""The report's tables: view model → rows of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from h2tune.report import formats
from h2tune.report.costs import TIMES
from h2tune.report.intervals import difference, wilson
from h2tune.report.manifests import DIGITS
from h2tune.report.parts import Cell, Table
from h2tune.report.view import Client, Notice, Score, View

ALL = "mean over clients"
"""The name of a row or a chart of `compare` that is of no single client."""


def results(view: View) -> Table:
    """Return each client's accuracy before, alone and federated, and what federation added."""
    alone = any(client.alone for client in view.clients)
    base = "alone" if alone else "before"
    head = ["client", f"{view.split} examples", "majority label", "before"]
    head += [*(["alone"] if alone else []), "federated", f"federated − {base}, points"]
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        federated = client.last("federated")
        scores = [client.before, *([client.last("alone")] if alone else []), federated]
        examples = next((s.examples for s in reversed(scores) if s and s.examples), None)
        rows.append(
            [
                Cell(client.name, client.task),
                formats.count(examples),
                formats.percent(client.majority or None),
                *map(_score, scores),
                _difference(federated, scores[-2]),
            ]
        )
    if len(view.clients) > 1:
        rows.append(_mean_row(view.clients, alone))
    return Table(
        f"Accuracy per client, with {formats.LEVEL} intervals below", head, rows, last=len(view.clients) > 1
    )


def gains(view: View) -> list[tuple[float, tuple[float, float] | None]]:
    """Return federated − alone (− before, without a run alone) and its interval, of each client that has both."""
    alone = any(client.alone for client in view.clients)
    found = []
    for client in view.clients:
        after, base = client.last("federated"), client.last("alone") if alone else client.before
        if after and base:
            found.append((after.accuracy - base.accuracy, _interval(after, base)))
    return found


def _mean_row(clients: Sequence[Client], alone: bool) -> list[Cell | str]:
    scores = [[c.before for c in clients], *([[c.last("alone") for c in clients]] if alone else [])]
    scores.append([c.last("federated") for c in clients])
    means = [fmean(s.accuracy for s in column if s) if all(column) else None for column in scores]
    majority = [c.majority for c in clients]
    mean_majority = fmean(m for m in majority if m) if all(majority) else None
    after, base = means[-1], means[-2]
    gap = after - base if after is not None and base is not None else None
    return ["mean", "", formats.percent(mean_majority), *map(formats.percent, means), formats.points(gap)]


def _score(score: Score | None) -> Cell:
    if score is None:
        return Cell(formats.NONE)
    if not score.examples:
        return Cell(formats.percent(score.accuracy))
    low, high = (f"{end * 100:.1f}" for end in wilson(score.accuracy, score.examples))
    return Cell(formats.percent(score.accuracy), f"{low} to {high}")


def _interval(after: Score, base: Score) -> tuple[float, float] | None:
    if not after.examples or not base.examples:
        return None
    return difference(after.accuracy, after.examples, base.accuracy, base.examples)


def _difference(after: Score | None, base: Score | None) -> Cell:
    if after is None or base is None:
        return Cell(formats.NONE)
    interval = _interval(after, base)
    below = between(*interval) if interval else ""
    return Cell(formats.points(after.accuracy - base.accuracy), below)


def notices(found: Sequence[Notice], *, codes: bool) -> Table:
    """Return warnings (with their codes) or failures: what was said more than once in one row, with its rounds."""
    rounds: dict[tuple[str, bool, str, str], list[int]] = {}
    for notice in found:
        key = (notice.client, notice.alone, notice.code, notice.message)
        rounds.setdefault(key, []).extend([notice.round] if notice.round is not None else [])
    rows: list[list[Cell | str]] = [
        [
            (client or "server") + (" (alone)" if alone else ""),
            formats.round_ranges(when),
            Cell(message, code if codes else ""),
        ]
        for (client, alone, code, message), when in rounds.items()
    ]
    return Table("", ["where", "round", "what happened"], rows, words=(1, 2))


def clients(view: View) -> Table:
    """Return what the clients are: model, task, rank, sizes."""
    head = [
        "client",
        "model",
        "task",
        "rank",
        "blocks",
        "width",
        "train / validation / test",
        "trainable parameters",
    ]
    rows: list[list[Cell | str]] = []
    for c in view.clients:
        sizes = [formats.count(c.examples.get(split)) for split in ("train", "validation", "test")]
        kind = f"{len(c.labels)} labels: {', '.join(c.labels)}" if c.labels else "free answers"
        if len(kind) > 60:
            kind = f"{len(c.labels)} labels"
        rows.append(
            [c.name, Cell(c.model, c.family), Cell(c.task, kind), formats.count(c.rank), formats.count(c.depth),
             formats.count(c.width), " / ".join(sizes), formats.count(c.trainable_parameters)]
        )  # fmt: skip
    return Table("Clients", head, rows, words=(1, 2))


def steps(view: View) -> Table:
    """Return the server's steps, one a round."""
    rows: list[list[Cell | str]] = [
        [
            formats.round_name(r),
            ", ".join(a.clients),
            formats.number(a.change),
            formats.number(a.norm),
            formats.duration(a.seconds),
            Cell(a.sha256[:DIGITS], code=True),
        ]
        for r, a in sorted(view.aggregates.items())
    ]
    head = ["round", "clients", *(f"{what} of {view.held}" for what in ("change", "norm")), "time", "SHA-256"]
    return Table("The server's steps", head, rows, words=(1, 5), folded=True)


def by_round(view: View) -> Table:
    """Return accuracies by round, for those who want the numbers of the charts."""
    last = max((r + 1 for c in view.clients for r in (*c.federated, *c.alone)), default=0)
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        for stage, scores in (("federated", client.federated), ("alone", client.alone)):
            if scores:
                values = [scores[r].accuracy if r in scores else None for r in range(last)]
                before = client.before.accuracy if client.before else None
                rows.append([client.name, stage, *map(formats.percent, [before, *values])])
    head = ["client", "training", "before", *(f"round {r + 1}" for r in range(last))]
    return Table("Accuracy by round", head, rows, words=(1,), folded=True)


def times(view: View) -> Table:
    """Return the seconds that each client spent in all, by what it did."""
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        spent = [
            sum(t.seconds[name] for t in client.trained.values() if name in t.seconds) for name in TIMES[:-1]
        ]
        if client.trained:
            rows.append([client.name, *map(formats.duration, [*spent, sum(spent)])])
    server = sum(a.seconds or 0 for a in view.aggregates.values())
    if view.aggregates:
        rows.append(["server", *[formats.NONE] * len(TIMES[:-1]), formats.duration(server)])
    return Table("Time by client", ["client", *TIMES[:-1], "in all"], rows, folded=True)


def moves(view: View) -> Table:
    """Return parameters that got no gradient, by client and round."""
    rows: list[list[Cell | str]] = [
        [c.name, formats.round_name(r), str(len(t.without_gradient)), ", ".join(t.without_gradient[:8])
         + (" …" if len(t.without_gradient) > 8 else "")]
        for c in view.clients for r, t in sorted(c.trained.items()) if t.without_gradient
    ]  # fmt: skip
    return Table(
        "Parameters without a gradient",
        ["client", "round", "how many", "names"],
        rows,
        words=(1, 3),
        folded=True,
    )


def compared(view: View) -> Table:
    """Return the rows of `compare`."""
    rows: list[list[Cell | str]] = []
    for row in view.compared:
        known = row.low is not None and row.high is not None
        below = f"{(row.low or 0) * 100:.1f} to {(row.high or 0) * 100:.1f}" if known else ""
        gap = between(row.difference_low, row.difference_high)
        drawn = between(row.bootstrap_low, row.bootstrap_high) or formats.NONE
        rows.append(
            [row.client or ALL, row.method, formats.count(row.seeds), Cell(formats.percent(row.mean), below),
             Cell(formats.points(row.difference), gap), drawn, formats.probability(row.p),
             formats.probability(row.p_holm), formats.size(row.bytes_up), formats.size(row.bytes_down),
             formats.duration(row.seconds)]
        )  # fmt: skip
    against = f"difference to {view.reference}, points" if view.reference else "difference, points"
    head = ["client", "method", "seeds", "accuracy", against, "its bootstrap interval", "p", "p (Holm)",
            "sent", "received", "training time"]  # fmt: skip
    return Table(f"Methods, mean over seeds with {formats.LEVEL} intervals below", head, rows, words=(1,))


def between(low: float | None, high: float | None) -> str:
    """Return the ends of an interval in points; empty if one is not known."""
    return "" if low is None or high is None else f"{formats.points(low)} to {formats.points(high)}"
