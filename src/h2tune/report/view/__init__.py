"""What the report shows, as plain data: events → `ReportView`. Pure."""

from h2tune.report.view.build import build_view
from h2tune.report.view.model import ReportView

__all__ = ["ReportView", "build_view"]
