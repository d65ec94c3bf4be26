"""The exchange before the first round: who is relevant to whom, and what each client decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from h2tune.report import formats
from h2tune.report.charts.heat import Cells, HeatMap, heat_maps, numbered
from h2tune.report.sections.parts import Cell, Figure, Section, Table
from h2tune.report.view import ReportView
from h2tune.report.view.model import ClientView, LessonView

TAUGHT = {
    "own": "Each client taught itself: its own predictions on the public texts.",
    "directions": "Clients with the same labels exchanged label directions, once, before the first round.",
    "predictions": "Clients with the same labels exchanged their predictions on the public texts.",
    "moments": "Clients with the same labels exchanged sums of moments of their texts.",
}


def sections(view: ReportView) -> list[Section]:
    """Return the section; none where nobody taught anybody."""
    taught = [(client, client.lesson) for client in view.clients if client.lesson is not None]
    if not taught:
        return []
    kinds = dict.fromkeys(TAUGHT[lesson.teaching] for _, lesson in taught if lesson.teaching in TAUGHT)
    text = [*kinds, "On the public texts a client then learns from what they know together, its teacher."]
    tables = [_decisions(taught)]
    return [
        Section("teaching", "Teachers on the public texts", text, figures=_figures(taught), tables=tables)
    ]


def _figures(taught: Sequence[tuple[ClientView, LessonView]]) -> list[Figure]:
    """Return the cosines and the weights of clients that exchanged directions."""
    lessons = {client.name: lesson for client, lesson in taught if lesson.cosines}
    if len(lessons) < 2:
        return []
    cosines = _matrix({name: lesson.cosines for name, lesson in lessons.items()}, 1.0)
    weights = _matrix({name: lesson.weights for name, lesson in lessons.items()}, 0.0)
    pairs = [lessons[a].cosines[b] for a in lessons for b in lessons if a < b and b in lessons[a].cosines]
    figures = []
    if pairs:
        note = f"Mean of all pairs with the same labels: {formats.number(sum(pairs) / len(pairs), 2)}"
        note += _below_zero(pairs, "pair")
        figures.append(
            _map("cosines", "Cosines of label directions", "cosine", cosines, [*lessons], note, high=1.0)
        )
    note = "Row: who learns; column: from whom" + _below_zero([v for row in weights for v in row], "weight")
    high = max(max(row) for row in weights)
    return [
        *figures,
        _map("teachers", "Weights of the peers", "weight", weights, [*lessons], note, high=high),
    ]


def _matrix(rows: Mapping[str, Mapping[str, float]], diagonal: float) -> list[list[float]]:
    """Return numbers by name as a square, in the order of the names; what is missing is zero."""
    return [[diagonal if a == b else rows[a].get(b, 0.0) for b in rows] for a in rows]


def _below_zero(values: Sequence[float], noun: str) -> str:
    negative = sum(value < 0 for value in values)
    return f"; {formats.plural(negative, noun)} below zero shown as 0" if negative else ""


def _map(
    key: str,
    heading: str,
    caption: str,
    values: Sequence[Sequence[float]],
    names: Sequence[str],
    note: str,
    *,
    high: float,
) -> Figure:
    note += "; columns have the numbers of the rows"
    rows = [f"{number} {name}" for number, name in enumerate(names, start=1)]  # long names are cut
    cells, columns = Cells("client", 0, len(names), rows), numbered("client", 1, len(names))
    height = max(130, 20 * len(names))
    svg = heat_maps(key, heading, note, [HeatMap(caption, values)], cells, columns, high=high, height=height)
    return Figure(heading, svg, note, ("0", formats.number(high, 1)))


def _decision(lesson: LessonView) -> str:
    if lesson.taken:
        return "taken"
    return (lesson.reason or "declined") + ("; not trained, as it has no labels" if lesson.untrained else "")


def _decisions(taught: Sequence[tuple[ClientView, LessonView]]) -> Table:
    """Return what each client compared on its own labels, and what it decided."""
    rows: list[list[Cell | str]] = [
        [
            client.name,
            formats.percent(lesson.own_right),
            formats.percent(lesson.peers_right),
            formats.number(lesson.own_loss, 3),
            formats.number(lesson.peers_loss, 3),
            formats.number(lesson.standard_error, 3),
            formats.percent(lesson.own_share),
            formats.number(lesson.covered, 2),
            _decision(lesson),
        ]
        for client, lesson in taught
    ]
    head = [
        "client", "own head right", "teacher right", "log-loss of own head", "log-loss of teacher",
        "standard error", "own share of teacher", "covered by public texts", "decision",
    ]  # fmt: skip
    return Table("On each client's own labels, cross-validated", head, rows, words=(8,))
