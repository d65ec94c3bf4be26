"""The report of a run: events → view → sections → page, one HTML file that works offline.

`view` reads events into plain data, `charts` draws, `sections` says what is shown and in what words, `page` puts it
into one file.
"""

from pathlib import Path


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path; see `page.write_report`."""
    from h2tune.report import page  # the library that draws charts is loaded where it is needed

    return page.write_report(run_folder, out)


__all__ = ["write_report"]
