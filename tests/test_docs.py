"""The documentation names what there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from h2tune import config
from h2tune.functional.quorum import colluders_tolerated, threshold_needed
from h2tune.tasks import MODULES as TASKS
from h2tune.tasks.chat import ChatTask
from h2tune.tasks.rows import FileTask

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTIONS = [
    config.ServerConfig,
    config.AdapterConfig,
    config.BasisConfig,
    config.TrainConfig,
    config.DataConfig,
    config.PrivacyConfig,
    config.ExperimentalConfig,
]
SECTIONS += [config.ClientConfig, FileTask, ChatTask]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_every_key_of_a_federation_file_is_documented(section):
    text = (DOCS / "federation-file.md").read_text()
    missing = [key for key in section.model_fields if f"`{key}`" not in text]
    assert not missing


def test_no_key_is_documented_that_is_not_there():
    text = (DOCS / "federation-file.md").read_text()
    keys = {key for section in (*SECTIONS, config.FederationConfig) for key in section.model_fields}
    first_cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, flags=re.MULTILINE)
    named = {key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)}
    assert named and named <= keys


def test_every_built_in_task_is_documented():
    text = (DOCS / "federation-file.md").read_text()
    assert not [name for name in TASKS if f"`{name}`" not in text]


def test_the_threat_model_names_tests_that_are_there():
    tests = "".join(path.read_text() for path in (DOCS.parent / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "security.md").read_text()))
    assert len(named) > 15 and not [name for name in named if f"def {name}(" not in tests]


def test_the_table_of_colluders_is_what_the_threshold_gives():
    text = (DOCS / "secure-aggregation.md").read_text().partition("| n | t by default |")[2]
    rows = [
        tuple(map(int, row))
        for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    ]
    assert len(rows) >= 6
    for n, t, k, lost in rows:
        assert (t, k, lost) == (threshold_needed(n), colluders_tolerated(n, t), n - t)
