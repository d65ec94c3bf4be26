"""Three journeys, as `docs/journeys.md` describes them word for word: the scripts beside this file, run as they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import federations, tiny

from h2tune.events import read_events

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "journeys.md"
JOURNEYS = {"practitioner": "A practitioner", "researcher": "A researcher", "engineer": "An engineer"}
"""Script → how its section of the page begins."""


def steps_of_script(text: str):
    """Yield the files that a script writes, and its commands, in order."""
    lines = iter(text.splitlines())
    for line in lines:
        if found := re.fullmatch(r"cat (>>?) (\S+) <<'END'", line):
            yield found[1], found[2], "\n".join(iter(lambda: next(lines), "END"))
        elif line and not line.startswith("#") and line != "set -eu":
            yield "$", line


def steps_of_page(section: str):
    """Yield the same of a section: blocks after a line with a file's name, and commands."""
    for before, kind, block in re.findall(r"([^\n]*)\n\n```(\w+)\n(.*?)\n```", section, re.DOTALL):
        if kind == "console":
            yield from (
                ("$", line.removeprefix("$ ")) for line in block.splitlines() if line.startswith("$ ")
            )
        else:
            name = re.search(r"`([\w.]+)`:$", before)
            assert name, before
            yield ">>" if "append" in before.lower() else ">", name[1], block


@pytest.mark.parametrize("name", JOURNEYS)
def test_the_page_has_the_words_of_the_script(name):
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = (section for section in sections if section.startswith(JOURNEYS[name]))
    script = [(kind, *(part.strip("\n") for part in parts)) for kind, *parts in steps_of_script(read(name))]
    assert len(script) > 4 and list(steps_of_page(section)) == script


def read(name: str) -> str:
    return (HERE / f"{name}.sh").read_text(encoding="utf-8")


@pytest.fixture
def home(tmp_path):
    """A folder with two models, and the data of three clients as JSON Lines and as a spreadsheet saves them."""
    tiny.save_model_folder(tmp_path / "models" / "decoder", "llama", labels=2)
    tiny.save_model_folder(tmp_path / "models" / "encoder", "bert", labels=2)
    (tmp_path / "public.txt").write_text("\n".join(federations.PUBLIC[:60]) + "\n")
    for seed, name in enumerate(("north", "south", "west")):
        path = federations.write_rows(tmp_path / f"{name}.jsonl", count=80, seed=seed)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = ["words;label;café", *(f"{row['words']};{row['label']};é" for row in rows)]
        (tmp_path / f"{name}.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    (tmp_path / "new.csv").write_bytes("words;café\r\nthe good film;é\r\na dull book;é".encode("cp1252"))
    return tmp_path


def travel(name: str, home: Path) -> str:
    """Run a script in a folder, end all that it started, and return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    log = home / "log.txt"
    with log.open("w") as stream:
        child = subprocess.Popen(
            ["bash", str(HERE / f"{name}.sh")],
            cwd=home,
            env={**federations.environment(), "PATH": path},
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = child.wait(1700)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
    logs = [log, *sorted(home.glob("*.log"))]
    text = "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in logs)
    assert status == 0, text
    # a script of the user's own may hear of Transformers' plans, and a status file counts "Warnings."
    ours = [line for line in text.splitlines() if "site-packages/transformers" not in line]
    assert not any("Traceback" in line or "Warning:" in line for line in ours), text
    return log.read_text(errors="replace")  # `head` shows a file in cp1252


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_practitioner_gets_an_adapter_from_two_spreadsheets(home):
    said = travel("practitioner", home)
    assert "torch.Size([1, " in said and "{0: 'yes', 1: 'no'}" in said
    rows = (home / "predictions.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[0].startswith("words,café,prediction,probability of yes")
    assert (home / "wards.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_researcher_gets_a_table_and_figures(home):
    said = travel("researcher", home)
    table = (home / "table.tex").read_text()
    assert table.count(r"\toprule") == 1 and "largest" in table
    assert "mean.pdf" in said and "mean.svg" in said
    assert (home / "wards.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_engineer_runs_a_federation_of_three_members(home):
    pytest.importorskip("flwr", reason="pip install 'h2tune[flower]'")
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("nginx is not installed")
    said = travel("engineer", home)
    events = read_events(home / "parties" / "coordinator" / "run" / "events.jsonl")
    assert [e["clients"] for e in events if e["event"] == "aggregated"] == [["north", "south", "west"]] * 2
    assert said.count("entries ") == 4 and "FAIL" not in said
    assert "h2tune_" in said
