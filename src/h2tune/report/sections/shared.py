"""What is shared: relation, mask coverage, change of the server's state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from h2tune.report import formats
from h2tune.report.charts import axes
from h2tune.report.charts.heat import Cells, HeatMap, heat_maps, numbered
from h2tune.report.charts.lines import Series, lines
from h2tune.report.charts.theme import NUMBERED
from h2tune.report.sections.charted import charted
from h2tune.report.sections.messages import DIGITS
from h2tune.report.sections.parts import Cell, Figure, LegendEntry, Section, Table
from h2tune.report.view.model import AggregateView, ClientView, ReportView, TrainingView

CHANGE, NORM = NUMBERED[0], NUMBERED[2]
Matrix = Sequence[Sequence[float]]


def relation(view: ReportView) -> Section:
    """Return each client's relation matrix P after its first and its last round."""
    title, figures = "Relation of blocks to shared slots", []
    some, said = charted([c for c in view.clients if any(t.relation for t in c.trained.values())])
    for i, client in enumerate(some):
        if maps := _first_and_last(client, lambda trained: trained.relation):
            figures.append(_relation(i, client.name, maps))
    if not figures:
        return Section("relation", title, ["This run has no relation matrices."])
    text = [
        "P: the weight of each shared slot (row) for each block of a client's model (column), after its first and last "
        "round. A column sums to 1. Blocks and slots count from 0, from the input to the output of the model.",
        *said,
    ]
    return Section("relation", title, text, figures=figures)


def _relation(number: int, client: str, maps: Sequence[HeatMap]) -> Figure:
    first, last = maps[0].values, maps[-1].values
    rows, columns = len(last), len(last[0])
    note = f"{formats.plural(columns, 'block')}, {formats.plural(rows, 'slot')}"
    if len(maps) == 2:
        change, row, column = max(
            (abs(last[g][b] - first[g][b]), g, b) for g in range(rows) for b in range(columns)
        )
        note += f"; largest change of an entry {formats.number(change, 2)}, at slot {row}, block {column}"
    title = f"Relation of {client}'s blocks to shared slots"
    places = (numbered("slot", 0, rows), numbered("block", 0, columns))
    svg = heat_maps(f"relation-{number}", title, note, maps, *places, high=1, height=max(150, 5 * rows))
    return Figure(client, svg, note, ("0", "1"))


def coverage(view: ReportView) -> Section:
    """Return which entries of the common grid each client's masks keep, in its first and its last round."""
    title, figures = "Mask coverage", []
    some, said = charted([c for c in view.clients if any(t.coverage for t in c.trained.values())])
    for i, client in enumerate(some):
        if maps := _first_and_last(client, lambda trained: trained.coverage):
            figures.append(_coverage(i, client, view.shared_rank, maps))
    if not figures:
        return Section("coverage", title, ["This run has no masks."])
    text = [
        "Fraction of a client's modules whose mask Ω keeps an entry of the common R × R grid, in its first and last "
        "round. Each client has its own colour scale. Entries that several clients keep are learned together.",
        *said,
    ]
    return Section("coverage", title, text, figures=figures)


def _coverage(number: int, client: ClientView, size: int | None, maps: Sequence[HeatMap]) -> Figure:
    note, rank = "", client.rank
    if size and rank:
        note = f"rank {rank} of R = {size}: {formats.count(rank**2)} of {formats.count(size**2)} entries"
        note += f" ({formats.percent(rank**2 / size**2)})"
    end = size or len(maps[0].values)
    high = max(value for shown in maps for row in shown.values for value in row) or 1
    title = f"Entries that {client.name}'s masks keep"
    places = (Cells("row", 0, end), Cells("column", 0, end))
    svg = heat_maps(f"coverage-{number}", title, note, maps, *places, high=high)
    return Figure(client.name, svg, note, ("0", formats.percent(high, 0)))


def _first_and_last(client: ClientView, read: Callable[[TrainingView], Matrix | None]) -> list[HeatMap]:
    """Return the maps of the first and the last round, or one if there is one or their shapes differ."""

    def first(rounds: Iterable[int]) -> tuple[int, Matrix] | None:
        return next(((r, m) for r in rounds if (m := read(client.trained[r]))), None)

    rounds = sorted(client.trained)
    ends = [found for found in (first(rounds), first(reversed(rounds))) if found]
    if len(ends) == 2 and (ends[0][0] == ends[1][0] or _shape(ends[0][1]) != _shape(ends[1][1])):
        ends = ends[1:]
    return [HeatMap(f"round {r + 1}", values) for r, values in ends]


def _shape(matrix: Matrix) -> tuple[int, int]:
    return len(matrix), len(matrix[0])


def change(view: ReportView) -> Section:
    """Return how far the server's state moved in each round, by role (or kind of tensor) and as a whole."""
    title = "Change of what is shared"
    relevant = _relevance(view.aggregates)
    figures = [*_by_role(view), *_as_a_whole(view), *relevant]
    if not figures:
        return Section("shared", title, ["No aggregation has been logged yet."])
    text = ["The tensors that the server holds for all clients and updates in every round."]
    if view.shares_middles:
        text = [
            "G, the shared middle matrices, is all that clients learn together; the server updates it every round."
        ]
    if relevant:
        text.append(
            "In this run each client has its own G, which moves by the client's own step and by those of other clients "
            "weighted by their relevance: 1 where two steps point the same way, 0 where they are unrelated. The charts "
            "of change show the mean over clients, which is what a client that joins later starts from."
        )
    legend = [LegendEntry("change in the round", CHANGE), LegendEntry(f"norm of {view.held}", NORM)]
    return Section("shared", title, text, legend, figures, [_steps(view)])


def _by_role(view: ReportView) -> list[Figure]:
    steps = dict(sorted(view.aggregates.items()))
    names = [r for r in view.roles if any(r in a.change_by_role for a in steps.values())]
    names += sorted({r for a in steps.values() for r in a.change_by_role} - set(names))
    if not names:
        return []
    rounds = range(min(steps), max(steps) + 1)
    values = [
        [steps[r].change_by_role.get(name, 0.0) if r in steps else 0.0 for r in rounds] for name in names
    ]
    high = max(max(row) for row in values) or 1
    described = "; ".join(
        f"{name}: " + ", ".join(map(formats.number, row)) for name, row in zip(names, values, strict=True)
    )
    word = "role" if view.shares_middles else "kind of tensor"
    svg = heat_maps(
        "shared-roles", f"Change of {view.held} by {word} and round", described,
        [HeatMap("L2 norm of the change", values)], Cells(word, 0, len(names), names),
        numbered("round", min(steps) + 1, len(rounds)), high=high, height=max(142, 20 * len(names)),
    )  # fmt: skip
    return [Figure(f"By {word}", svg, scale=("0", formats.short(high)))]


def _as_a_whole(view: ReportView) -> list[Figure]:
    series = []
    for name, look, read in (
        ("change in the round", CHANGE, lambda a: a.change),
        (f"norm of {view.held}", NORM, lambda a: a.norm),
    ):
        values = {r + 1.0: read(a) for r in range(view.rounds) for a in [view.aggregates.get(r)] if a}
        if any(value is not None for value in values.values()):
            points = [(r + 1.0, values.get(r + 1.0)) for r in range(view.rounds)]
            notes = {r: f"{name}, round {r:.0f}: {formats.number(v)}" for r, v in values.items()}
            series.append(Series(name, look, points, notes=notes))
    if not series:
        return []
    y = axes.linear("L2 norm", [0.0, *(v for s in series for _, v in s.points if v is not None)])
    described = "; ".join(f"{s.name}: " + ", ".join(formats.number(v) for _, v in s.points) for s in series)
    title = f"Change and norm of {view.held} by round"
    return [
        Figure(
            "As a whole",
            lines("shared-whole", title, described, series, axes.count("round", 1, view.rounds), y),
        )
    ]


def _relevance(aggregates: dict[int, AggregateView]) -> list[Figure]:
    """Return how relevant clients were to each other in the first and the last round, if each has its own G."""
    found = {
        r: a.relevance for r, a in sorted(aggregates.items()) if a.relevance and len(a.relevance.clients) > 1
    }
    if not found:
        return []
    names = found[max(found)].clients
    same = [r for r, shown in found.items() if shown.clients == names]
    maps = [HeatMap(f"round {r + 1}", found[r].weights) for r in dict.fromkeys((same[0], same[-1]))]
    pairs = itertools.permutations(range(len(names)), 2)
    most, i, j = max((maps[0].values[i][j], i, j) for i, j in pairs)
    note = f"{maps[0].caption}: "
    note += (
        f"most relevant is {names[j]} to {names[i]}, {formats.number(most, 2)}"
        if most > 0
        else "all unrelated"
    )
    note += "; columns are in the order of the rows"
    svg = heat_maps(
        "relevance", "Relevance of each client's step (column) to each client (row)", note, maps,
        Cells("client", 0, len(names), names), numbered("client", 1, len(names)), high=1,
        height=max(130, 20 * len(names)),
    )  # fmt: skip
    return [Figure("Relevance", svg, note, ("0", "1"))]


def _steps(view: ReportView) -> Table:
    """Return the server's aggregations, one per round."""
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
    return Table("Aggregation by round", head, rows, words=(1, 5), folded=True)
