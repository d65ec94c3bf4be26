"""Parts of the page, as the template takes them: figures, legends, tables, sections. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from markupsafe import Markup

from h2tune.report.svg import MARKS, add


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and a sentence or two below."""

    heading: str
    svg: Markup
    note: str = ""


def figure(heading: str, svg: str, note: str = "") -> Figure:
    """Return a figure of a chart of `plots` or `heat`, which are the only source of markup in the page."""
    return Figure(heading, Markup(svg), note)  # noqa: S704 - an XML tree wrote it, text is escaped


@dataclass(frozen=True)
class LegendEntry:
    """A name and a swatch that looks like its line, mark or bar."""

    name: str
    swatch: Markup


def legend_entry(name: str, look: str, mark: int = -1, *, bar: bool = False) -> LegendEntry:
    """Return a legend entry.

    Args:
        name: What is explained.
        look: Class in the style sheet, as in the chart.
        mark: Number of the mark, or -1.
        bar: Whether it is a filled area, not a line.
    """
    root = ElementTree.Element(
        "svg", {"viewBox": "0 0 28 12", "class": f"swatch {look}", "aria-hidden": "true"}
    )
    if bar:
        add(root, "rect", class_="bar", x=8, y=0, width=12, height=12)
    else:
        add(root, "path", class_="line", d="M1 6H27")
    if mark >= 0:
        add(root, "path", class_="mark", d="M14 6" + MARKS[mark % len(MARKS)])
    return LegendEntry(name, Markup(ElementTree.tostring(root, encoding="unicode")))  # noqa: S704 - as above


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `below` is written smaller under `value`."""

    value: str
    below: str = ""
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its first column names the rows, columns in `words` hold text and not numbers.

    Args:
        caption: What it holds; also the heading where it is folded.
        head: Names of the columns.
        rows: Cells; a string is a cell with nothing below.
        words: Numbers of the columns with text, beside the first.
        folded: Whether it opens only on demand.
        last: Whether the last row is a summary.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: Sequence[int] = ()
    folded: bool = False
    last: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page; one without figures and tables says in its text why."""

    key: str
    title: str
    text: Sequence[str] = ()
    legend: Sequence[LegendEntry] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = field(default_factory=tuple)
