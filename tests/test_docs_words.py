"""Pages are plain and true: paths and tests that they name exist, table cells are phrases, words are not private."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from h2tune.events import EVENTS

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ["README.md", "CONTRIBUTING.md", "PAPER.md", "SECURITY.md", "CHANGELOG.md"]
PAGES = [*ROOT_PAGES, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
WRITTEN_TODAY = [page for page in PAGES if page != "docs/experiments/log.md"]
"""The pages but the archive of measurements, which keeps its words and the names of its time."""
PRIVATE_WORDS = r"\b(told|mends?|mended|mending|bears?|borne|wears?|worn)\b"
LONGEST_CELL = 160
"""Characters of a table cell, code not counted."""


def text(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """Return a page without its blocks and without code in the text."""
    without = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", without)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def questions() -> list[tuple[str, str]]:
    part = text("CONTRIBUTING.md").partition("## One question, one file")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.+\?) \| `([^`]+)` \|$", part, flags=re.MULTILINE)


def test_an_outsiders_question_has_one_file():
    found = questions()
    assert len(found) > 15 and len({question for question, _ in found}) == len(found)
    assert not [path for _, path in found if not (ROOT / path).is_file()]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Where is equation (5)?", "Equation (5)"),
        ("Where do I change the mask rule?", "def choose_mask"),
        ("What leaves a client?", "class FactorCodec"),
        ("How do I add a baseline?", "MODULES"),
        ("Which events exist?", "EVENTS"),
        ("How is a round retried?", "ATTEMPTS"),
    ],
)
def test_the_file_answers_the_question(question, words):
    assert words in text(dict(questions())[question])


@pytest.mark.parametrize("page", WRITTEN_TODAY)
def test_paths_in_the_text_exist(page):
    named = re.findall(r"`((?:src|tests|docs|examples|benchmarks|\.ci|\.github)/[^`\s]*)`", text(page))
    assert not [path for path in named if not list(ROOT.glob(path.rstrip("/")))]


def test_paths_in_the_papers_tables_exist():
    paths = re.findall(r"`([\w./]+/[\w.]*)`", text("PAPER.md").partition("## Claims")[2])
    homes = (ROOT / "src" / "h2tune", ROOT / "tests", ROOT)
    assert len(paths) > 20
    assert not [path for path in paths if not any((home / path).exists() for home in homes)]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]", text(page)):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            linked = (ROOT / page).parent / path if path else ROOT / page
            assert linked.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
                assert anchor in [slug(heading.replace("`", "")) for heading in headings], target


TESTED = ["docs/deploy.md", "docs/secure-aggregation.md", "docs/security.md", "docs/data-protection.md"]


@pytest.mark.parametrize("page", TESTED)
def test_tests_that_a_page_names_exist(page):
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+?)(_?…)?`", text(page))
    assert len(named) > 8
    for name, cut in named:
        assert f"def {name}" + ("" if cut else "(") in code, name


@pytest.mark.parametrize("page", TESTED)
def test_every_claim_in_a_table_with_tests_names_one(page):
    claims, tested = 0, False
    for line in text(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            tested = False
        elif cells[-1] in ("test", "tests"):
            tested = True
        elif tested and not set(line) <= set("|-"):
            claims += 1
            assert "`test_" in cells[-1] or cells[-1] in ("the same", "the same test"), line
    assert claims > 8


@pytest.mark.parametrize("page", PAGES)
def test_a_table_cell_is_a_phrase(page):
    for line in prose(page).splitlines():
        if line.lstrip().startswith("|"):
            for cell in line.strip().strip("|").split("|"):
                shown = re.sub(r"\]\([^)]*\)", "", cell).strip()
                assert len(shown) <= LONGEST_CELL and not re.search(r"[a-z]\. [A-Z]", shown), shown


@pytest.mark.parametrize("page", WRITTEN_TODAY)
def test_the_english_is_not_private(page):
    assert not re.findall(PRIVATE_WORDS, prose(page), flags=re.IGNORECASE)


def test_every_event_has_a_row():
    rows = re.findall(r"^\| `(\w+)` \|", text("docs/reference/events.md"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(EVENTS)


def test_every_equation_is_written_down_once():
    found = re.findall(r"^### Equation \((\d+)\)", text("docs/concepts.md"), flags=re.MULTILINE)
    assert sorted(map(int, found)) == list(range(1, 15))


def test_code_cites_equations_that_are_written_down():
    for path in (ROOT / "src").rglob("*.py"):
        cited = re.findall(r"[Ee]quations? \((\d+)\)(?: and \((\d+)\))?", path.read_text())
        assert {int(n) for pair in cited for n in pair if n} <= set(range(1, 15)), path
