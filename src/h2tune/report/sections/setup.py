"""What ran: settings, and the clients with their models, tasks and sizes."""

from __future__ import annotations

from h2tune.report import formats
from h2tune.report.sections.parts import Cell, Section, Table
from h2tune.report.view.model import ReportView


def section(view: ReportView) -> Section:
    """Return the settings of the run and the table of its clients."""
    known = [
        ("strategy", view.strategy), ("seed", formats.count(view.seed)),
        ("common rank R", formats.count(view.shared_rank)), ("slots D", formats.count(view.slots)),
        ("mask", view.mask), ("alternation", view.alternation), ("type on the wire", view.wire_dtype),
        ("roles", ", ".join(view.roles)),
    ]  # fmt: skip
    said = " · ".join(f"{name} {value}" for name, value in known if value not in ("", formats.NONE))
    tables = [clients(view), *environment(view)]
    return Section("setup", "What ran", [said] if said else [], tables=tables)


def environment(view: ReportView) -> list[Table]:
    """Return what numbers depend on beside the settings, if it was recorded."""
    rows = [[name, value] for name, value in view.environment.items()]
    title = "Versions, threads and processor"
    return [Table(title, ["what", "value"], rows, words=(1,), folded=True)] if rows else []


def clients(view: ReportView) -> Table:
    """Return each client's model, task, rank and sizes."""
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
