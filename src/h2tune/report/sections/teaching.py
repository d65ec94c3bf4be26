"""The exchange before the first round: who is relevant to whom, and what each client decided."""

from __future__ import annotations

from collections.abc import Sequence

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
    figures = [f for f in (_cosines(taught), _weights(taught)) if f is not None]
    return [
        Section(
            "teaching", "Teachers on the public texts", text, figures=figures, tables=[_decisions(taught)]
        )
    ]


def _cosines(taught: Sequence[tuple[ClientView, LessonView]]) -> Figure | None:
    names = [client.name for client, lesson in taught if lesson.cosines]
    if len(names) < 2:
        return None
    rows = {client.name: lesson.cosines for client, lesson in taught}
    values = [[1.0 if a == b else rows[a].get(b, 0.0) for b in names] for a in names]
    pairs = [rows[a][b] for a in names for b in names if a < b and b in rows[a]]
    if not pairs:
        return None
    note = f"Mean of all pairs with the same labels: {formats.number(sum(pairs) / len(pairs), 2)}"
    negative = sum(value < 0 for value in pairs)
    note += f"; {formats.plural(negative, 'pair')} below zero shown as 0" if negative else ""
    return _map(
        "cosines", "Cosines of label directions", "cosine", values, names, f"{note}; {ORDER}", high=1.0
    )


def _weights(taught: Sequence[tuple[ClientView, LessonView]]) -> Figure | None:
    names = [client.name for client, lesson in taught if lesson.cosines]
    if len(names) < 2:
        return None
    rows = {client.name: lesson.weights for client, lesson in taught}
    values = [[0.0 if a == b else rows[a].get(b, 0.0) for b in names] for a in names]
    high = max(max(row) for row in values)
    swapped = sum(value < 0 for row in values for value in row)
    note = "Row: who learns; column: from whom"
    note += f"; {formats.plural(swapped, 'weight')} below zero shown as 0" if swapped else ""
    return _map("teachers", "Weights of the peers", "weight", values, names, f"{note}; {ORDER}", high=high)


ORDER = "columns are in the order of the rows"


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
    cells, columns = Cells("client", 0, len(names), names), numbered("client", 1, len(names))
    height = max(130, 20 * len(names))
    svg = heat_maps(key, heading, note, [HeatMap(caption, values)], cells, columns, high=high, height=height)
    return Figure(heading, svg, note, ("0", formats.number(high, 1)))


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
            "taken" if lesson.taken else (lesson.reason or "declined"),
        ]
        for client, lesson in taught
    ]
    head = [
        "client", "own head right", "consensus right", "log-loss of own head", "log-loss of consensus",
        "standard error", "decision",
    ]  # fmt: skip
    return Table("On each client's own labels, cross-validated", head, rows, words=(6,))
