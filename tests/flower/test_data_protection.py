"""The page for a data protection officer: what is stored where, and what never leaves a member."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import federations
from helpers.grids import Grid, coordinator_of, identify, lay_out

from h2tune.flower.coordinator.app import coordinate
from h2tune.flower.deploy import flwr_commands
from h2tune.flower.messages import parts

MARK = "zqxjkv"
"""A word of every text of every member, and of nothing else."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-protection.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return the folder of the parties after a run, the files before it, and all answers of members."""
    folder = tmp_path_factory.mktemp("marked")
    content = federations.federation(folder, train={"local_steps": 1}, data={"train": 8, "test": 4})
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        marked = [row | {"words": f"{row['words']} {MARK}{i}"} for i, row in enumerate(rows)]
        file.write_text("".join(json.dumps(row) + "\n" for row in marked))
    with pytest.MonkeyPatch.context() as patch:
        identify(patch)
        laid = lay_out(content, folder)
        before = {path for path in laid.rglob("*") if path.is_file()}
        grid = Grid(laid, names=("one", "two"))
        coordinate(grid, coordinator_of(laid, deadline=240.0, patience=60.0, gather=60.0))
    return laid, before, [reply for _, _, reply in grid.seen]


def test_no_text_of_an_example_is_in_a_file_that_is_written_or_in_a_message(ran):
    laid, before, replies = ran
    assert MARK in (laid.parent / "one.jsonl").read_text()
    written = {path for path in laid.rglob("*") if path.is_file()} - before
    assert len(written) > 20 and len(replies) >= 6
    assert not [path for path in written if MARK.encode() in path.read_bytes()]
    for reply in replies:
        head, tensors = parts(reply.content)
        assert MARK not in head and MARK.encode() not in (tensors or b"")


def test_what_a_run_writes_is_in_the_places_that_the_page_names(ran):
    laid, before, _ = ran
    written = {path.relative_to(laid) for path in laid.rglob("*") if path.is_file()} - {
        path.relative_to(laid) for path in before
    }
    places = {re.sub(r"/[0-9a-f]{32}/.*", "/EXPERIMENT/", path.as_posix()) for path in written}
    places = {re.sub(r"^members/\w+/|^coordinator/", "", place) for place in places}
    named = re.findall(r"`([\w./]+)`", PAGE.read_text().partition("## How long")[0])
    assert not [place for place in places if not place.startswith(tuple(named))], (places, named)


def test_a_member_that_removes_its_run_keeps_checksums_and_epsilon_alone(ran):
    laid, _, _ = ran
    left = [path.name for path in (laid / "members/one/private").iterdir() if len(path.name) != 32]
    assert sorted(left) == ["audit.jsonl", "epsilon.json", "epsilon.json.lock"]
    entries = (laid / "members/one/private/audit.jsonl").read_text().splitlines()
    words = {word for entry in entries for word in re.findall(r"[a-z]{4,}", entry)}
    assert len(entries) >= 3 and not words & {"good", "great", "fine", "poor", "dull"}


def test_flowers_telemetry_and_its_search_for_updates_are_off(ran, tmp_path):
    wanted = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    assert wanted.items() <= flwr_commands.environment(tmp_path).items()
    pages = [path for path in ran[1] if path.name == "README.md"]
    assert len(pages) == 3
    for page in pages:  # the commands that a reader types
        assert all(f"{name}={value}" in page.read_text() for name, value in wanted.items()), page
