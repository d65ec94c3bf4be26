"""The report's sections on what guards a federation: robust rules, secure aggregation, differential privacy. Pure."""

from __future__ import annotations

from h2tune.report import formats
from h2tune.report.parts import Cell, Section, Table
from h2tune.report.view import View


def sections(view: View) -> list[Section]:
    """Return the sections that the run has something for."""
    return [*robust(view), *secure(view), *privacy(view)]


def robust(view: View) -> list[Section]:
    """Return what a robust rule did, if there was one."""
    steps = [a.robust for _, a in sorted(view.aggregates.items()) if a.robust is not None]
    if not steps:
        return []
    last = steps[-1]
    text = [
        f"The server combines what clients learned by \u201c{last.rule}\u201d instead of a mean, to bear "
        f"{formats.plural(last.hostile or 0, 'hostile client')}. What fewer clients cover than that takes "
        "stays as it is: \u201cleft\u201d is their share of all that anyone covers.",
        "A rule bears what it was made for and no more: EXPERIMENTS.md has what was measured.",
    ]
    return [Section("robust", "Hostile clients", text, tables=[robust_table(view)])]


def robust_table(view: View) -> Table:
    """Return what the rule left, whom it kept, and whose increments it clipped, round by round."""
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
    head = ["round", "left", "clients not kept", "clipping norm", "clients clipped"]
    return Table("What the rule did", head, rows, words=(2, 4))


def secure(view: View) -> list[Section]:
    """Return how secure aggregation went, if it was on."""
    steps = [(r, a.secure) for r, a in sorted(view.aggregates.items()) if a.secure is not None]
    if not steps:
        return []
    rows: list[list[Cell | str]] = [
        [formats.round_name(r), *(", ".join(names) for names in (s.survivors, s.dropped, s.silent))]
        for r, s in steps
    ]
    text = [
        f"The server got sums over the clients named here and no client's own part of them; {steps[-1][1].threshold} "
        "clients or more are needed for a sum. On one machine this proves the arithmetic and protects nothing. Losses, "
        "accuracies and movement in this report are of single clients all the same.",
    ]
    head = ["round", "in the sum", "dropped out", "in the sum, revealed no shares"]
    tables = [Table("Whose values were summed", head, rows, words=(1, 2, 3))]
    return [Section("secure", "Secure aggregation", text, tables=tables)]


def privacy(view: View) -> list[Section]:
    """Return what differential privacy the run has, if any."""
    steps = [a.privacy for _, a in sorted(view.aggregates.items()) if a.privacy is not None]
    if not steps:
        return []
    last = steps[-1]
    who = "the server, once" if last.noise == "server" else "the members, each its share"
    text = [
        f"Gaussian noise, added by {who}: standard deviation {formats.number(last.multiplier)} × the clipping norm "
        f"{formats.number(last.clip)} on the sum of what the clients learned. After the last round that is told, what "
        f"the members receive tells of one client's increments at most ε = {formats.number(last.epsilon)} at δ = "
        f"{formats.number(last.delta)}.",
        "Not protected: coverage, masks and relations, example counts, who took part, and all numbers of training in "
        "this report and in events.jsonl (losses, accuracies, movement, times). Do not pass them on where the ε is to "
        "hold. Other runs on the same data add to it.",
    ]
    if last.noise == "member":
        text.append(
            "The coordinator sees each member's message with its share of the noise alone: against it, ε = "
            f"{formats.number(last.epsilon_to_server)}."
        )
    else:
        text.append(
            "The server, and whoever reads its memory or the clients' messages, is not protected against."
        )
    return [Section("privacy", "Differential privacy", text, tables=[privacy_table(view)])]


def privacy_table(view: View) -> Table:
    """Return ε until each round."""
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
    head = ["round", "ε until then", "ε against the coordinator", "δ", "roles held back"]
    return Table("What was spent", head, rows, words=(4,))
