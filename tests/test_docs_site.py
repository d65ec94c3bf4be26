"""The documentation site builds without a warning, and asks the network for nothing when it is read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import federations

pytestmark = pytest.mark.slow  # `make docs` in .ci/run builds it, too
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    arguments = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments, str(DOCS), str(folder)],
        env=federations.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_has_every_page(site):
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    assert not [page for page in pages if not (site / f"{page}.html").exists()]


def test_the_reference_has_public_names_settings_and_commands(site):
    assert "h2tune.H2TuneConfig" in (site / "reference" / "python.html").read_text()
    assert "functional.aggregation" in (site / "reference" / "functional.html").read_text()
    commands = re.sub(r"<[^>]+>", "", (site / "reference" / "command-line.html").read_text())
    assert all(name in commands for name in ("h2tune run", "h2tune deploy check", "--strict"))


def test_pages_load_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(https?://[^"]*)"', path.read_text()
        )
        assert not loaded, path
