"""The report of a run: events → one HTML file that works offline."""

from h2tune.report.html import write_report

__all__ = ["write_report"]
