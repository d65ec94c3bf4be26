"""What protects a federation: robust aggregation, secure aggregation, differential privacy."""

from __future__ import annotations

from h2tune.report import formats
from h2tune.report.sections.parts import Cell, Section, Table
from h2tune.report.view import ReportView


def sections(view: ReportView) -> list[Section]:
    """Return the sections of the protections that the run uses."""
    return [*robust(view), *secure(view), *privacy(view)]


def robust(view: ReportView) -> list[Section]:
    """Return what a robust rule did, if the run uses one."""
    steps = [a.robust for _, a in sorted(view.aggregates.items()) if a.robust is not None]
    if not steps:
        return []
    last = steps[-1]
    text = [
        f"The server combines updates with the rule \u201c{last.rule}\u201d instead of a mean, so that it tolerates "
        f"{formats.plural(last.hostile or 0, 'hostile client')}. Entries that too few clients cover do not change; "
        "\u201cunchanged\u201d is their fraction of all entries that any client covers.",
        "A rule protects only against the attacks that it was designed for; EXPERIMENTS.md has measurements.",
    ]
    return [Section("robust", "Hostile clients", text, tables=[robust_table(view)])]


def robust_table(view: ReportView) -> Table:
    """Return per round the fraction left unchanged, the clients not kept, and those whose increments were clipped."""
    rows: list[list[Cell | str]] = []
    for r, a in sorted(view.aggregates.items()):
        if a.robust is not None:
            beyond = [c for c, n in a.robust.norms.items() if a.robust.clip_norm and n > a.robust.clip_norm]
            not_kept = sorted(set(a.clients) - set(a.robust.kept)) if a.robust.kept else []
            rows.append(
                [
                    formats.round_name(r),
                    formats.percent(a.robust.left),
                    ", ".join(not_kept),
                    formats.number(a.robust.clip_norm),
                    ", ".join(sorted(beyond)),
                ]
            )
    head = ["round", "unchanged", "clients not kept", "clipping norm", "clients clipped"]
    return Table("What the rule did", head, rows, words=(2, 4))


def secure(view: ReportView) -> list[Section]:
    """Return how secure aggregation went, if the run uses it."""
    steps = [(r, a.secure) for r, a in sorted(view.aggregates.items()) if a.secure is not None]
    if not steps:
        return []
    rows: list[list[Cell | str]] = [
        [formats.round_name(r), *(", ".join(names) for names in (s.survivors, s.dropped, s.silent))]
        for r, s in steps
    ]
    text = [
        f"The server received only sums over the clients named here; a sum needs at least {steps[-1][1].threshold} "
        "clients. On one machine this exercises the protocol and protects nothing. Losses, accuracies and movement in "
        "this report still belong to single clients.",
    ]
    head = ["round", "in the sum", "dropped out", "in the sum, without key shares"]
    tables = [Table("Clients in each sum", head, rows, words=(1, 2, 3))]
    return [Section("secure", "Secure aggregation", text, tables=tables)]


def privacy(view: ReportView) -> list[Section]:
    """Return the guarantee of differential privacy, if the run has one."""
    steps = [a.privacy for _, a in sorted(view.aggregates.items()) if a.privacy is not None]
    if not steps:
        return []
    last = steps[-1]
    who = "the server" if last.noise == "server" else "the clients, each its share"
    text = [
        f"{who[0].upper()}{who[1:]} added Gaussian noise to the sum of increments, with a standard deviation of "
        f"{formats.number(last.multiplier)} × the clipping norm {formats.number(last.clip)}. After the last round "
        f"logged, what clients receive is differentially private for each client's increments with ε = "
        f"{formats.number(last.epsilon)} at δ = {formats.number(last.delta)}.",
        "Not covered: coverage, masks, relations, example counts, who took part, and all training metrics in this "
        "report and in events.jsonl (losses, accuracies, movement, times). Publishing them voids the guarantee, and "
        "further runs on the same data add to ε.",
    ]
    if last.noise == "member":
        text.append(
            "The coordinator sees each client's message with only its own share of the noise; against the coordinator, "
            f"ε = {formats.number(last.epsilon_to_server)}."
        )
    else:
        text.append(
            "There is no protection against the server or anyone who reads its memory or the messages to it."
        )
    return [Section("privacy", "Differential privacy", text, tables=[privacy_table(view)])]


def privacy_table(view: ReportView) -> Table:
    """Return ε after each round."""
    rows: list[list[Cell | str]] = [
        [
            formats.round_name(r),
            formats.number(a.privacy.epsilon),
            formats.number(a.privacy.epsilon_to_server),
            formats.number(a.privacy.delta),
            ", ".join(a.privacy.held_back),
        ]
        for r, a in sorted(view.aggregates.items())
        if a.privacy is not None
    ]
    head = ["round", "ε so far", "ε against the coordinator", "δ", "roles not updated"]
    return Table("Privacy spent", head, rows, words=(4,))
