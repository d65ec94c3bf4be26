"""Charts of learning: accuracy, loss, movement, comparison; view model → figures, one a client. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from h2tune.report import formats, tables
from h2tune.report.intervals import wilson
from h2tune.report.parts import Figure, figure
from h2tune.report.plots import Interval, Series, intervals, lines
from h2tune.report.svg import CROSS, Axis, count_axis, linear_axis, log_axis
from h2tune.report.view import Client, Compared, Score, View

PHASES = {"joint": ("s0", 0), "shared": ("s1", 1), "specific": ("s2", 2)}
"""Look and mark of each phase of training."""
KINDS = {
    "delta": ("Δ, the middle's change", "s0", 0),
    "scores": ("S, mask scores", "s1", 1),
    "relation": ("Z, relation logits", "s2", 2),
    "down": ("A, down", "s3", 3),
    "up": ("B, up", "s4", 4),
    "head": ("task head", "s5", 5),
}
"""Name, look and mark of each kind of trained parameter."""
MARKED = 20
"""A client's losses of more steps than this are lines without marks."""
MOST_POINTS = 400
"""A client's losses are averaged over neighbouring steps until no more points than this are left."""


def accuracy(view: View) -> list[Figure]:
    """Return each client's accuracy by round, federated and alone, and its majority label's."""
    scored = [c for c in view.clients if c.before or c.federated or c.alone]
    shown: list[float] = []
    for client in scored:
        for score in (client.before, *client.federated.values(), *client.alone.values()):
            shown += [score.accuracy] if score else []
        for score in client.federated.values():
            shown += wilson(score.accuracy, score.examples) if score.examples else ()
        shown += [client.majority] if client.majority else []
    y = linear_axis("accuracy, %", shown, form=lambda v: f"{v * 100:.0f}", bounds=(0, 1))
    last = max((r + 1 for c in scored for r in (*c.federated, *c.alone)), default=1)
    x = count_axis("round (0: before training)", 0, last)
    return [_accuracy(view, i, client, x, y) for i, client in enumerate(scored)]


def _accuracy(view: View, number: int, client: Client, x: Axis, y: Axis) -> Figure:
    series = []
    for name, scores, look, mark in (
        ("alone", client.alone, "alone", 1),
        ("federated", client.federated, "federated", 0),
    ):
        by_round = {**({0: client.before} if client.before else {}), **{r + 1: s for r, s in scores.items()}}
        if scores or (name == "federated" and by_round):
            finished = client.trained_alone if name == "alone" else client.trained
            series.append(_score_series(name, by_round, finished, look, mark))
    failed = [f for f in view.failures if f.client == client.name and not f.alone and f.round is not None]
    if failed:
        places = [(float(f.round or 0) + 1, y.low) for f in failed]
        notes = {float(f.round or 0) + 1: f"failed in round {formats.round_name(f.round)}" for f in failed}
        series.append(Series("failed", "failed", _apart(places), CROSS, notes=notes))
    told = [
        f"{s.name}: " + ", ".join(formats.percent(v) for _, v in s.points if v is not None)
        for s in series[:2]
    ]
    rules = [(client.majority, "majority")] if client.majority else []
    told += [f"majority label: {formats.percent(client.majority)}"] if rules else []
    title = f"Accuracy of {client.name} by round"
    svg = lines(f"accuracy-{number}", title, "; ".join(told), series, x, y, rules=rules)
    last = client.last("federated") or client.before
    parts = [
        client.task,
        formats.plural(last.examples, f"{view.split} example") if last and last.examples else "",
    ]
    return figure(client.name, svg, ", ".join(part for part in parts if part))


def _score_series(
    name: str, scores: Mapping[int, Score], finished: Collection[int], look: str, mark: int
) -> Series:
    """Return the line of scores by round, with a gap for rounds that were not finished (not for those not scored)."""
    points = [
        (float(r), scores[r].accuracy if r in scores else None)
        for r in range(max(scores) + 1)
        if r in scores or r - 1 not in finished
    ]
    known = {float(r): (s.accuracy, s.examples) for r, s in scores.items()}
    ranges = {r: wilson(a, n) for r, (a, n) in known.items() if n}
    notes = {}
    for r, (value, _) in known.items():
        when = f"round {r:.0f}" if r else "before training"
        low, high = map(formats.percent, ranges.get(r, (None, None)))
        interval = f", {formats.LEVEL} interval {low} to {high}" if r in ranges else ""
        notes[r] = f"{name}, {when}: {formats.percent(value)}{interval}"
    return Series(name, look, points, mark, ranges if name == "federated" else {}, notes)


def _apart(points: Sequence[tuple[float, float]]) -> list[tuple[float, float | None]]:
    """Return points with gaps between them, so that no line joins them."""
    return [pair for x, y in points for pair in ((x, y), (x, None))]


def loss(view: View) -> list[Figure]:
    """Return each client's training loss by step and phase, the rounds one after the other."""
    return [_loss(i, c) for i, c in enumerate(view.clients) if any(t.losses for t in c.trained.values())]


def _loss(number: int, client: Client) -> Figure:
    total = sum(len(t.losses) for t in client.trained.values())
    block = max(1, -(-total // MOST_POINTS))
    points: dict[str, list[tuple[float, float | None]]] = {}
    broken: list[float] = []
    bands, done = [], 0
    for where, trained in sorted(client.trained.items()):
        for phase in dict.fromkeys(phase for phase, _ in trained.losses):
            own = [(done + i + 1, value) for i, (p, value) in enumerate(trained.losses) if p == phase]
            broken += [step for step, value in own if value is None]
            points.setdefault(phase, []).extend([*_averaged(own, block), (done + len(trained.losses), None)])
        done += len(trained.losses)
        bands.append((done + 0.5, f"round {where + 1}" if len(client.trained) < 6 else str(where + 1)))
    finite = [v for some in points.values() for _, v in some if v is not None]
    spread = bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)
    y = log_axis("training loss", finite) if spread else linear_axis("training loss", finite)
    x = count_axis("optimiser step", 1, max(done, 1), room=6)
    series = [
        Series(phase, look, some, mark)
        for phase, some in points.items()
        for look, mark in [phase_look(phase, list(points).index(phase))]
    ]
    if broken:
        series.append(Series("not finite", "failed", _apart([(step, y.high) for step in broken]), CROSS))
    in_order = [v for _, t in sorted(client.trained.items()) for _, v in t.losses if v is not None]
    told = (
        f"from {formats.number(in_order[0])} to {formats.number(in_order[-1])}"
        if in_order
        else "never finite"
    )
    note = f"{told}, {formats.plural(done, 'step')}"
    note += f"; each point is the mean of up to {block} steps" if block > 1 else ""
    note += f"; not finite in {formats.plural(len(broken), 'step')}" if broken else ""
    title = f"Training loss of {client.name} by step"
    svg = lines(f"loss-{number}", title, note, series, x, y, bands=bands, marks=done <= MARKED)
    return figure(client.name, svg, note)


def phase_look(name: str, number: int) -> tuple[str, int]:
    """Return look and mark of a phase; `number` tells those apart that have no fixed one."""
    return PHASES.get(name, (f"s{(number + 3) % 6}", number + 3))


def _averaged(steps: Sequence[tuple[int, float | None]], block: int) -> list[tuple[float, float | None]]:
    """Return means over blocks of neighbouring steps, without what is not finite; a block of nothing else is a gap."""
    found: list[tuple[float, float | None]] = []
    for start in range(0, len(steps), block):
        some = steps[start : start + block]
        finite = [value for _, value in some if value is not None]
        place = sum(step for step, _ in some) / len(some)
        found.append((place, sum(finite) / len(finite) if finite else None))
    return found


def movement(view: View) -> list[Figure]:
    """Return how far each kind of a client's parameters moved in each round."""
    rounds, looks = view.rounds, kinds(view)
    return [
        _movement(i, c, rounds, looks)
        for i, c in enumerate(view.clients)
        if any(t.moved for t in c.trained.values())
    ]


def kinds(view: View) -> dict[str, tuple[str, str, int]]:
    """Return name, look and mark of every kind of parameter that moved in a run, in order."""
    found = {kind for client in view.clients for t in client.trained.values() for kind in t.moved}
    others = {kind: (kind, f"s{i % 6}", i) for i, kind in enumerate(sorted(found - KINDS.keys()))}
    return {kind: look for kind, look in (KINDS | others).items() if kind in found}


def _movement(number: int, client: Client, rounds: int, looks: Mapping[str, tuple[str, str, int]]) -> Figure:
    values = [value for t in client.trained.values() for value in t.moved.values()]
    y = log_axis("L2 norm of the change", values)
    series = []
    for kind, (name, look, mark) in looks.items():
        if not any(kind in t.moved for t in client.trained.values()):
            continue
        told = {r: client.trained[r].moved.get(kind) if r in client.trained else None for r in range(rounds)}
        series.append(Series(name, look, _parted([(r + 1.0, v) for r, v in told.items()]), mark))
    told_all = "; ".join(
        f"{s.name}: " + ", ".join(formats.number(v) for _, v in s.points if v is not None) for s in series
    )
    still = sorted({s.name for s in series if any(v == 0 for _, v in s.points)})
    title = f"Movement of {client.name}'s parameters by round"
    svg = lines(
        f"moved-{number}", title, told_all, series, count_axis("round", 1, max(rounds, 1)), y, height=222
    )
    return figure(client.name, svg, f"zero in at least one round: {', '.join(still)}" if still else "")


def _parted(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Return points with gaps about those at zero: on a logarithmic scale no line leads there."""
    return [p for x, v in points for p in ([(x, None), (x, v), (x, None)] if v == 0 else [(x, v)])]


def comparison(rows: Sequence[Compared], reference: str) -> list[Figure]:
    """Return the paired differences of `compare` with their intervals, one picture a client."""
    known = [row for row in rows if row.difference is not None]
    ends = [v for r in known for v in (r.difference, r.difference_low, r.difference_high) if v is not None]
    label = f"difference to {reference}, points" if reference else "difference, points"
    x = linear_axis(label, [0.0, *ends], form=lambda v: formats.points(v, 0), count=6)
    if x.ticks[1][0] - x.ticks[0][0] < 0.01 - 1e-9:
        x = linear_axis(label, [0.0, *ends], form=formats.points, count=5)
    found = []
    for i, client in enumerate(dict.fromkeys(row.client for row in known)):
        own = [row for row in known if row.client == client]
        shown = [
            Interval(r.method, r.difference or 0.0, r.difference_low, r.difference_high, _look(r), _told(r))
            for r in own
        ]
        told = "; ".join(interval.note for interval in shown)
        name = client or tables.ALL
        found.append(figure(name, intervals(f"compare-{i}", f"Paired differences on {name}", told, shown, x)))
    return found


def _look(row: Compared) -> str:
    low, high = row.difference_low, row.difference_high
    return "clear" if (low is not None and low > 0) or (high is not None and high < 0) else "unclear"


def _told(row: Compared) -> str:
    low = formats.points(row.difference_low) if row.difference_low is not None else "unknown"
    high = formats.points(row.difference_high) if row.difference_high is not None else "unknown"
    return f"{row.method}: {formats.points(row.difference)} points, {formats.LEVEL} interval {low} to {high}"
