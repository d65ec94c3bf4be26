"""How clients learned: accuracy and loss by round, and how far their parameters moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from h2tune.report import formats
from h2tune.report.charts import axes
from h2tune.report.charts.lines import Series, lines
from h2tune.report.charts.theme import ALONE, FAILED, FEDERATED, MAJORITY, NUMBERED, Look
from h2tune.report.intervals import wilson
from h2tune.report.sections.charted import charted
from h2tune.report.sections.parts import Cell, Figure, LegendEntry, Section, Table
from h2tune.report.view.model import ClientView, ReportView, ScoreView

PHASES = {
    "joint": "joint step",
    "shared": "shared phase (Δ, S, Z)",
    "specific": "specific phase (A, B, head)",
}
"""What each phase of training trains."""
KINDS = {
    "delta": "Δ, change of the middle matrices",
    "scores": "S, mask scores",
    "relation": "Z, relation logits",
    "down": "A, down-projections",
    "up": "B, up-projections",
    "head": "task head",
}
"""What each kind of trained parameter is."""
MOST_POINTS = 400
"""A client's losses are averaged over neighbouring steps until no more points than this are left."""
Points = list[tuple[float, float | None]]


def accuracy(view: ReportView) -> Section:
    """Return accuracy by client and round."""
    scored = [c for c in view.clients if c.before or c.federated or c.alone]
    if not scored:
        return Section("accuracy", "Scores by round", ["No evaluation has been logged yet."])
    legend = [LegendEntry(f"federated, with {formats.LEVEL} interval", FEDERATED)]
    legend += [LegendEntry("alone", ALONE)] if view.has_alone else []
    legend += (
        [LegendEntry("always the most frequent label", MAJORITY)] if any(c.majority for c in scored) else []
    )
    legend += [LegendEntry("failed", FAILED)] if any(not f.alone for f in view.failures) else []
    shown: list[float] = []
    for client in scored:
        for score in (client.before, *client.federated.values(), *client.alone.values()):
            shown += [score.accuracy] if score else []
        for score in client.federated.values():
            shown += wilson(score.accuracy, score.examples) if score.examples else ()
        shown += [client.majority] if client.majority else []
    measure = formats.measure_of(client.measure for client in scored)
    y = axes.linear(f"{measure}, %", [value * 100 for value in shown], percent=True)
    last = max((r + 1 for c in scored for r in (*c.federated, *c.alone)), default=1)
    x = axes.count("round (0: before training)", 0, last)
    some, said = charted(scored)
    text = [
        "All clients share one vertical scale. A gap in a line is a round that the client did not finish.",
        *said,
    ]
    figures = [_accuracy(view, i, client, x, y) for i, client in enumerate(some)]
    title = f"{formats.capital(measure)} by round"
    return Section("accuracy", title, text, legend, figures, [_by_round(view)])


def _accuracy(view: ReportView, number: int, client: ClientView, x: axes.Channel, y: axes.Channel) -> Figure:
    series = []
    for name, scores, look in (("alone", client.alone, ALONE), ("federated", client.federated, FEDERATED)):
        by_round = {**({0: client.before} if client.before else {}), **{r + 1: s for r, s in scores.items()}}
        if scores or (name == "federated" and by_round):
            finished = client.trained_alone if name == "alone" else client.trained
            series.append(_score_series(name, by_round, finished, look))
    said = [
        f"{s.name}: " + ", ".join(formats.percent(v / 100) for _, v in s.points if v is not None)
        for s in series
    ]
    failed = {
        f.round for f in view.failures if f.client == client.name and not f.alone and f.round is not None
    }
    if failed:
        places = [(r + 1.0, -1.0) for r in sorted(failed)]  # below the scale: drawn at its start
        notes = {r + 1.0: f"failed in round {formats.round_name(r)}" for r in failed}
        series.append(Series("failed", FAILED, _apart(places), notes=notes))
    said += [f"majority label: {formats.percent(client.majority)}"] if client.majority else []
    rules = [(client.majority * 100, MAJORITY)] if client.majority else []
    title = f"{formats.capital(client.measure or 'accuracy')} of {client.name} by round"
    svg = lines(f"accuracy-{number}", title, "; ".join(said), series, x, y, rules=rules)
    last = client.last("federated") or client.before
    examples = formats.plural(last.examples, f"{view.split} example") if last and last.examples else ""
    return Figure(client.name, svg, ", ".join(part for part in (client.task, examples) if part))


def _score_series(
    name: str, scores: Mapping[int, ScoreView], finished: Collection[int], look: Look
) -> Series:
    """Return the line of scores by round, with gaps for rounds that were not finished (not for those not scored)."""
    points: Points = [
        (float(r), scores[r].accuracy * 100 if r in scores else None)
        for r in range(max(scores) + 1)
        if r in scores or r - 1 not in finished
    ]
    spans, notes = {}, {}
    for r, score in scores.items():
        notes[float(r)] = (
            f"{name}, {f'round {r}' if r else 'before training'}: {formats.percent(score.accuracy)}"
        )
        if score.examples:
            low, high = wilson(score.accuracy, score.examples)
            notes[float(r)] += f", {formats.LEVEL} interval {formats.percent(low)} to {formats.percent(high)}"
            spans[float(r)] = (low * 100, high * 100)
    return Series(name, look, points, spans if name == "federated" else {}, notes)


def _by_round(view: ReportView) -> Table:
    """Return the numbers of the charts of accuracy."""
    last = max((r + 1 for c in view.clients for r in (*c.federated, *c.alone)), default=0)
    rows: list[list[Cell | str]] = []
    for client in view.clients:
        for stage, scores in (("federated", client.federated), ("alone", client.alone)):
            if scores:
                values = [scores[r].accuracy if r in scores else None for r in range(last)]
                before = client.before.accuracy if client.before else None
                rows.append([client.name, stage, *map(formats.percent, [before, *values])])
    head = ["client", "training", "before", *(f"round {r + 1}" for r in range(last))]
    measure = formats.measure_of(client.measure for client in view.clients)
    return Table(f"{formats.capital(measure)} by round", head, rows, words=(1,), folded=True)


def _apart(points: Sequence[tuple[float, float]]) -> Points:
    """Return points with gaps between them, so that no line joins them."""
    return [pair for x, y in points for pair in ((x, y), (x, None))]


def loss(view: ReportView) -> Section:
    """Return training losses by client."""
    clients = [c for c in view.clients if any(t.losses for t in c.trained.values())]
    if not clients:
        return Section("loss", "Training loss", ["No training has been logged yet."])
    steps = [step for c in clients for t in c.trained.values() for step in t.losses]
    looks = _phase_looks([phase for phase, _ in steps])
    legend = [LegendEntry(PHASES.get(phase, phase), look) for phase, look in looks.items()]
    legend += [LegendEntry("not finite", FAILED)] if any(value is None for _, value in steps) else []
    some, said = charted(clients)
    text = [
        "Loss of each optimiser step in the federated rounds. Vertical lines mark the ends of rounds.",
        *said,
    ]
    figures = [_loss(i, client, looks) for i, client in enumerate(some)]
    return Section("loss", "Training loss", text, legend, figures)


def _phase_looks(phases: Sequence[str]) -> dict[str, Look]:
    known = [*PHASES, *(p for p in dict.fromkeys(phases) if p not in PHASES)]
    return {p: NUMBERED[i % len(NUMBERED)] for i, p in enumerate(known) if p in set(phases)}


def _loss(number: int, client: ClientView, looks: Mapping[str, Look]) -> Figure:
    total = sum(len(t.losses) for t in client.trained.values())
    block = max(1, -(-total // MOST_POINTS))
    points: dict[str, Points] = {}
    broken: list[float] = []
    for where, trained in sorted(client.trained.items()):
        size = max(len(trained.losses), 1)
        for phase in dict.fromkeys(phase for phase, _ in trained.losses):
            own = [(where + (i + 1) / size, v) for i, (p, v) in enumerate(trained.losses) if p == phase]
            broken += [place for place, value in own if value is None]
            points.setdefault(phase, []).extend([*_averaged(own, block), (where + 1.0, None)])
    finite = [v for some in points.values() for _, v in some if v is not None]
    wide = bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)
    y = axes.log("training loss", finite) if wide else axes.linear("training loss", finite)
    x = axes.count("rounds", min(client.trained), max(client.trained) + 1, grid=True)
    series = [Series(phase, looks[phase], some) for phase, some in points.items()]
    if broken:
        # at the end of the scale
        series.append(Series("not finite", FAILED, _apart([(at, 1e99) for at in broken])))
    in_order = [v for _, t in sorted(client.trained.items()) for _, v in t.losses if v is not None]
    note = (
        f"from {formats.number(in_order[0])} to {formats.number(in_order[-1])}"
        if in_order
        else "never finite"
    )
    note += f", {formats.plural(total, 'step')}"
    note += f"; each point is the mean of up to {block} steps" if block > 1 else ""
    note += f"; not finite in {formats.plural(len(broken), 'step')}" if broken else ""
    title = f"Training loss of {client.name} by step"
    return Figure(client.name, lines(f"loss-{number}", title, note, series, x, y), note)


def _averaged(steps: Sequence[tuple[float, float | None]], block: int) -> Points:
    """Return means over blocks of neighbouring steps without values that are not finite; a block of those is a gap."""
    found: Points = []
    for start in range(0, len(steps), block):
        some = steps[start : start + block]
        finite = [value for _, value in some if value is not None]
        place = sum(place for place, _ in some) / len(some)
        found.append((place, sum(finite) / len(finite) if finite else None))
    return found


def movement(view: ReportView) -> Section:
    """Return how far each kind of a client's parameters moved in each round."""
    title, names = "Movement of parameters", _kinds(view)
    if not names:
        return Section("movement", title, ["No movement has been logged yet."])
    text = (
        "L2 norm of the change of each kind of parameter in a round, on a logarithmic scale; zero is drawn on the "
        "horizontal axis. A kind of parameter that stays at zero does not learn."
    )
    if "relation" in names:
        text += " In the first round G is zero, so the relation has nothing to mix and does not change."
    table = _without_gradient(view)
    said = [] if table.rows else ["Every trained parameter got a gradient in every round."]
    legend = [LegendEntry(name, look) for name, look in names.values()]
    moving, left_out = charted([c for c in view.clients if any(t.moved for t in c.trained.values())])
    figures = [_movement(i, client, view.rounds, names) for i, client in enumerate(moving)]
    return Section(
        "movement", title, [text, *left_out, *said], legend, figures, [table] if table.rows else ()
    )


def _kinds(view: ReportView) -> dict[str, tuple[str, Look]]:
    """Return name and look of every kind of parameter that moved, in order."""
    found = {kind for client in view.clients for t in client.trained.values() for kind in t.moved}
    names = KINDS | {kind: kind for kind in sorted(found - KINDS.keys())}
    return {k: (name, NUMBERED[i % len(NUMBERED)]) for i, (k, name) in enumerate(names.items()) if k in found}


def _movement(number: int, client: ClientView, rounds: int, kinds: Mapping[str, tuple[str, Look]]) -> Figure:
    y = axes.log("L2 norm of the change", [v for t in client.trained.values() for v in t.moved.values()])
    series, still = [], []
    for kind, (name, look) in kinds.items():
        moved = {r: t.moved[kind] for r, t in sorted(client.trained.items()) if kind in t.moved}
        if not moved:
            continue
        points: Points = []
        for r in range(rounds):  # gaps about zero: on a logarithmic scale no line leads there
            at, value = r + 1.0, moved.get(r)
            points += [(at, None), (at, value), (at, None)] if value == 0 else [(at, value)]
        series.append(Series(name, look, points))
        still += [name] if 0 in moved.values() else []
    description = "; ".join(
        f"{s.name}: " + ", ".join(formats.number(v) for _, v in s.points if v is not None) for s in series
    )
    title = f"Movement of {client.name}'s parameters by round"
    svg = lines(f"moved-{number}", title, description, series, axes.count("round", 1, max(rounds, 1)), y)
    return Figure(client.name, svg, f"zero in at least one round: {', '.join(still)}" if still else "")


def _without_gradient(view: ReportView) -> Table:
    rows: list[list[Cell | str]] = [
        [c.name, formats.round_name(r), str(len(t.without_gradient)), ", ".join(t.without_gradient[:8])
         + (" …" if len(t.without_gradient) > 8 else "")]
        for c in view.clients for r, t in sorted(c.trained.items()) if t.without_gradient
    ]  # fmt: skip
    head = ["client", "round", "how many", "names"]
    return Table("Parameters without a gradient", head, rows, words=(1, 3), folded=True)
