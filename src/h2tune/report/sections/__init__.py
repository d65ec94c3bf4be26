"""The sections of the page in their order: `ReportView` → text, charts and tables. Pure."""

from __future__ import annotations

from h2tune.report.sections import (
    comparison,
    learning,
    messages,
    protection,
    results,
    setup,
    shared,
    teaching,
    timing,
)
from h2tune.report.sections.parts import Section
from h2tune.report.view import ReportView


def sections(view: ReportView) -> list[Section]:
    """Return the sections; one that the run has nothing for says so, and optional ones are left out."""
    if view.comparison:
        return [comparison.section(view), comparison.setup(view)]
    matrices = [s for s in (shared.relation(view), shared.coverage(view)) if s.figures or view.shares_middles]
    return [
        results.section(view),
        *([comparison.section(view)] if view.compared else []),
        *teaching.sections(view),
        learning.accuracy(view),
        learning.loss(view),
        messages.tensors(view),
        learning.movement(view),
        *matrices,
        shared.change(view),
        *protection.sections(view),
        messages.traffic(view),
        timing.section(view),
        setup.section(view),
    ]
