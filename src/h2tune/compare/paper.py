"""A comparison for a paper: a LaTeX table, and figures as SVG and PDF."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from h2tune import files
from h2tune.compare.rows import Row
from h2tune.compare.tables import accuracy, difference
from h2tune.report import formats
from h2tune.report.charts.theme import CLEAR, UNCLEAR
from h2tune.report.view.comparison import shown_rows

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "∞": r"$\infty$",
    formats.MINUS: "$-$", formats.SPACE: r"\,", formats.NONE: "--",
}  # fmt: skip
"""Characters that LaTeX reads as commands, or that its fonts lack."""


def latex(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Return the comparison as a LaTeX table of the package booktabs."""
    head = [
        "Method",
        f"{formats.capital(facts['measure'])}, %",
        f"Difference to {facts['reference']}, points",
        "p (Holm)",
    ]
    lines, rows = [" & ".join(map(_tex, head)) + r" \\"], shown_rows(rows)
    for client in dict.fromkeys(row.client for row in rows):
        lines += [
            r"\midrule",
            rf"\multicolumn{{4}}{{l}}{{\emph{{{_tex(client or 'Mean over clients')}}}}} \\",
        ]
        for row in rows:
            if row.client == client:
                cells = (row.method, accuracy(row), difference(row), formats.probability(row.p_holm))
                lines.append(" & ".join(map(_tex, cells)) + r" \\")
    seeds = formats.plural(len(facts["seeds"]), "seed")
    brackets = "; in brackets 95 % Student t intervals" if len(facts["seeds"]) > 1 else ""
    caption = f"{facts['name']}: {facts['split']} {facts['measure']} after the last round, {seeds}{brackets}."
    body = "\n".join([r"\begin{tabular}{lrrr}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(caption)}}}\n{body}\n\\end{{table}}\n"
    )


def write_figures(folder: Path, rows: Sequence[Row], reference: str) -> None:
    """Write a figure of the differences for the mean over clients and for each client, as SVG and as PDF."""
    import vl_convert

    from h2tune.report.charts.draw import VERSION

    for client in dict.fromkeys(row.client for row in rows):
        own = [row for row in rows if row.client == client and row.difference is not None]
        if not own:
            continue
        spec, name = figure(own, reference), re.sub(r"[^A-Za-z0-9._-]", "_", client) or "mean"
        target = folder / (f"client-{name}" if client else name)
        options: dict[str, Any] = {"vl_version": VERSION, "allowed_base_urls": []}
        files.write_text(target.with_name(f"{target.name}.svg"), vl_convert.vegalite_to_svg(spec, **options))
        files.write_bytes(target.with_name(f"{target.name}.pdf"), vl_convert.vegalite_to_pdf(spec, **options))


def figure(rows: Sequence[Row], reference: str) -> dict[str, Any]:
    """Return means with their intervals in Vega-Lite; text is passed as data or as a title, never as an expression."""
    values = []
    for row in rows:
        low, high = row.difference_low, row.difference_high
        clear = (low is not None and low > 0) or (high is not None and high < 0)
        ends = {"low": None if low is None else low * 100, "high": None if high is None else high * 100}
        look = (CLEAR if clear else UNCLEAR).colour
        values.append(
            {"method": row.method, "difference": (row.difference or 0) * 100, **ends, "colour": look}
        )
    axis = {"title": f"difference to {reference}, points"}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    x = {"field": "difference", "type": "quantitative", "axis": axis, "scale": {"zero": True}}
    y = {"field": "method", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 0}}
    known = [value for value in values if value["low"] is not None and value["high"] is not None]
    spans = {"data": {"values": known}, "mark": {"type": "rule", "strokeWidth": 1.5}}
    return {
        "config": {"font": "Liberation Sans", "background": "white", "view": {"stroke": None}},
        "width": 320,
        "height": {"step": 22},
        "layer": [
            {"data": {"values": [{"x": 0}]}, "mark": {"type": "rule", "color": "#888888"},
             "encoding": {"x": {"field": "x", "type": "quantitative"}}},
            {**spans, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour}},
            {"data": {"values": values}, "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1},
             "encoding": {"x": x, "y": y, "color": colour}},
        ],
    }  # fmt: skip


def _tex(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
