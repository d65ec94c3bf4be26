"""Parts of the page, as the template takes them: figures, legends, tables, sections. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from h2tune.report.charts.theme import SHAPES, Look


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and a sentence or two below.

    Args:
        heading: What or whom it shows.
        svg: The chart.
        note: Text below it.
        scale: What the first and the last colour of a heat map stand for; empty for other charts.
    """

    heading: str
    svg: Markup
    note: str = ""
    scale: tuple[str, ...] = ()


@dataclass(frozen=True)
class LegendEntry:
    """A name beside a sample of its line and mark, or of its bar."""

    name: str
    look: Look
    bar: bool = False

    @property
    def outline(self) -> str:
        """The outline of the mark, as the path of an SVG element."""
        return SHAPES.get(self.look.shape, "")


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `below` is written smaller under `value`."""

    value: str
    below: str = ""
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its first column names the rows, columns in `words` hold text, the others numbers.

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

    @property
    def wide(self) -> bool:
        """Whether a name of a row is so long that its column needs a minimum width, or it would wrap at every word."""
        names = (row[0] for row in self.rows)
        return any(len(name if isinstance(name, str) else name.value) > 20 for name in names)


@dataclass(frozen=True)
class Section:
    """A section of the page; one without figures and tables says in its text why."""

    key: str
    title: str
    text: Sequence[str] = ()
    legend: Sequence[LegendEntry] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
