"""Results: what training in the federation added to each client's accuracy; warnings and failures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from h2tune.report import formats
from h2tune.report.intervals import difference, mean_difference, wilson
from h2tune.report.sections.parts import Cell, Section, Table
from h2tune.report.view.model import ClientView, NoticeView, ReportView, ScoreView

Interval = tuple[float, float]


def section(view: ReportView) -> Section:
    """Return the table of accuracies and how to read it."""
    said = summary(view)
    base = "training alone" if view.has_alone else "no training"
    reading = (
        f"Every score of a client is measured on the same examples. The difference compares training in the "
        f"federation with {base}. Intervals ({formats.LEVEL}) are Wilson's for accuracies and Newcombe's for "
        "differences; the latter treats the two accuracies as independent and is therefore wider than necessary. They "
        "cover the size of the test set, not the choice of the seed: h2tune compare measures that."
    )
    if any(client.measure for client in view.clients):
        reading += " For other scores between 0 and 1 they are wider still."
    unable = view.has_alone and any(c.last("federated") and not c.alone for c in view.clients)
    without = ["A client without labels cannot train alone, and does not count in the mean difference."]
    paragraphs = [*([said] if said else []), *(without if unable else []), reading]
    return Section("results", "Results", paragraphs, tables=[table(view)])


def summary(view: ReportView) -> str:
    """Return in one sentence what federation added; empty if that is not known yet."""
    found = gains(view)
    if not found:
        return ""
    said = f"Federated training against {'training alone' if view.has_alone else 'no training'}: "
    said += f"{formats.points(fmean(gap for gap, _ in found))} points"
    said += f" ({formats.point_ends(*interval)})" if (interval := mean_gain(found)) else ""
    said += f" on average over {len(found)} clients" if len(found) > 1 else ""
    known = [interval for _, interval in found if interval]
    clear = sum(low > 0 or high < 0 for low, high in known)
    if len(known) > 1:
        said += f". The {formats.LEVEL} interval excludes zero for {clear} of {len(known)} clients"
    elif known:
        said += f". The {formats.LEVEL} interval {'excludes' if clear else 'includes'} zero"
    return said + "."


def gains(view: ReportView) -> list[tuple[float, Interval | None]]:
    """Return federated − alone (− before, without training alone) and its interval, of each client that has both."""
    found = []
    for client in view.clients:
        after, base = client.last("federated"), client.last("alone") if view.has_alone else client.before
        if after and base:
            found.append((after.accuracy - base.accuracy, _interval(after, base)))
    return found


def mean_gain(found: Sequence[tuple[float, Interval | None]]) -> Interval | None:
    """Return the interval of the mean of `gains`; None if that of a client is unknown."""
    known = [(gap, interval) for gap, interval in found if interval]
    return mean_difference(known) if known and len(known) == len(found) else None


def table(view: ReportView) -> Table:
    """Return each client's accuracies, with what federation added first."""
    alone = view.has_alone
    head = [
        "client", f"federated − {'alone' if alone else 'before'}, points", "federated", *(["alone"] if alone else []),
        "before", "majority label", f"{view.split} examples",
    ]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        scores = _scores(client, alone)
        examples = next((s.examples for s in scores if s and s.examples), None)
        below = ", ".join(filter(None, (client.task, client.measure)))
        rows.append(
            [Cell(client.name, below), _difference(*scores[:2]), *map(_score, scores),
             formats.percent(client.majority or None), formats.count(examples)]
        )  # fmt: skip
    if len(view.clients) > 1:
        rows.append(_mean_row(view))
    measure = formats.measure_of(client.measure for client in view.clients)
    caption = f"{formats.capital(measure)} per client, with {formats.LEVEL} intervals below"
    return Table(caption, head, rows, last=len(view.clients) > 1)


def _scores(client: ClientView, alone: bool) -> list[ScoreView | None]:
    return [client.last("federated"), *([client.last("alone")] if alone else []), client.before]


def _mean_row(view: ReportView) -> list[Cell | str]:
    columns = zip(*(_scores(client, view.has_alone) for client in view.clients), strict=True)
    means = [fmean(s.accuracy for s in column if s) if all(column) else None for column in columns]
    majority = [c.majority for c in view.clients]
    mean_majority = fmean(m for m in majority if m) if all(majority) else None
    found = gains(view)
    interval = mean_gain(found)
    gap = fmean(gap for gap, _ in found) if found else None
    shown = Cell(formats.points(gap), formats.point_ends(*interval) if interval else "")
    return ["mean", shown, *map(formats.percent, means), formats.percent(mean_majority), ""]


def _score(score: ScoreView | None) -> Cell:
    if score is None:
        return Cell(formats.NONE)
    if not score.examples:
        return Cell(formats.percent(score.accuracy))
    low, high = (f"{end * 100:.1f}" for end in wilson(score.accuracy, score.examples))
    return Cell(formats.percent(score.accuracy), f"{low} to {high}")


def _interval(after: ScoreView, base: ScoreView) -> Interval | None:
    if not after.examples or not base.examples:
        return None
    return difference(after.accuracy, after.examples, base.accuracy, base.examples)


def _difference(after: ScoreView | None, base: ScoreView | None) -> Cell:
    if after is None or base is None:
        return Cell(formats.NONE)
    interval = _interval(after, base)
    return Cell(
        formats.points(after.accuracy - base.accuracy), formats.point_ends(*interval) if interval else ""
    )


def notices(found: Sequence[NoticeView], *, codes: bool) -> Table:
    """Return warnings (with their codes) or failures; what occurred in several rounds or to several is one row."""
    rounds: dict[tuple[str, str, str], list[int]] = {}
    for notice in found:
        where = (notice.client or "server") + (" (alone)" if notice.alone else "")
        key = (where, notice.code, notice.message)
        rounds.setdefault(key, []).extend([notice.round] if notice.round is not None else [])
    places: dict[tuple[str, str, str, bool], list[str]] = {}
    for (where, code, message), when in rounds.items():
        places.setdefault((formats.round_ranges(when), code, message, where == "server"), []).append(where)
    rows: list[list[Cell | str]] = [
        [
            where[0] if len(where) == 1 else Cell(f"{len(where)} clients", ", ".join(where)),
            when,
            Cell(message, code if codes else ""),
        ]
        for (when, code, message, _), where in places.items()
    ]
    return Table("", ["where", "round", "what happened"], rows, words=(1, 2))
