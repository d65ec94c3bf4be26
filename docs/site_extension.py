"""What the documentation site makes from the code: the command line, settings, and docstrings as Sphinx reads them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "paper": "PAPER.md",
    "experiments": "EXPERIMENTS.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "report-a-problem": "SECURITY.md",
}
"""Page of the site → the file in the root of the repository that it shows."""
SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:", "Note:")
SCHEMA = "h2tune.config.reference"


def fill_commands(app: Sphinx, name: str, content: list[str]) -> None:
    """Add every command with its arguments and options, as typer documents them."""
    if name == "reference/command-line":
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            arguments = ["h2tune.cli.main", "utils", "docs", "--name", "h2tune", "--output", str(page)]
            subprocess.run([sys.executable, "-m", "typer", *arguments], check=True, capture_output=True)  # noqa: S603
            content[0] += page.read_text().partition("\n")[2]  # the page has a title of its own


def fill_settings(app: Sphinx, name: str, content: list[str]) -> None:
    """Make the tables of the federation file's page from the configuration's schema."""
    if name == "federation-file" and importlib.util.find_spec(SCHEMA) is not None:
        content[0] = importlib.import_module(SCHEMA).filled(content[0])


def show_root_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Show a file of the repository's root in place of a page that only links to it."""
    if name in ROOT_PAGES:
        text = (ROOT / ROOT_PAGES[name]).read_text().replace("](docs/", "](")
        for page, file in ROOT_PAGES.items():
            text = text.replace(f"]({file}", f"]({page}.md")
        content[0] = text


def mark_equations(
    app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Make literal blocks of a docstring's indented paragraphs, which hold equations and commands."""
    if kind in ("data", "attribute") and lines:  # napoleon would take the words before a colon for a type
        lines[0] = lines[0].replace(": ", " – ")
    inside_section, result = False, list[str]()
    for line in lines:
        if line and not line.startswith(" "):
            inside_section = line in SECTIONS
        above = next((earlier for earlier in reversed(result) if earlier.strip()), "")
        new_paragraph = bool(result) and not result[-1].strip()
        if line.startswith("    ") and new_paragraph and not inside_section and not above.startswith(" "):
            result += ["::", ""]
        # `name` is code; ``name`` stays as it is
        result.append(re.sub(r"(?<!`)`([^`]+)`(?![`_])", r"``\1``", line))
    lines[:] = result


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the changes to pages and docstrings."""
    app.connect("source-read", show_root_page)
    app.connect("source-read", fill_settings)
    app.connect("source-read", fill_commands)
    app.connect("autodoc-process-docstring", mark_equations, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
