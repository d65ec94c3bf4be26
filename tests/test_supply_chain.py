"""The lock says what constraints.txt says; an audit that checked nothing does not pass."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOUND = {"id": "GHSA-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}


def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(file: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / file).read_text(), flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_lock_has_the_versions_of_the_constraints_each_with_hashes():
    lock, constraints = pins("requirements.lock"), pins("constraints.txt")
    assert lock.items() <= constraints.items() and len(lock) > 100
    assert "torch" in constraints and "torch" not in lock  # see the lock's head
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text().split("\n\n")[-1])
    for entry in entries:
        if "==" in entry.splitlines()[0]:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_has_everything_that_h2tune_and_its_extras_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = {re.split(r"[\[<>=!~ ]", d, maxsplit=1)[0].lower().replace("_", "-") for d in named}
    # trackers send what they see elsewhere and bring many packages; machines that hold data can do without
    assert names - {"h2tune", "torch", "uv", "tensorboard", "wandb"} <= pins("requirements.lock").keys()


@pytest.mark.parametrize(
    ("dependencies", "accepted", "expected", "code"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], [], "checked: 1 packages", 0),
        ([{"name": "a", "version": "1", "vulns": [FOUND]}], [], "FOUND: a 1: GHSA-1; mended in 2.0", 1),
        ([{"name": "A", "vulns": [FOUND]}], [{"id": "CVE-1", "package": "a", "reason": "r"}], "accepted: A", 0),
        ([{"name": "a", "vulns": [FOUND]}], [{"id": "CVE-1", "package": "a", "reason": " "}], "FOUND", 1),
        ([{"name": "a", "vulns": [FOUND]}], [{"id": "CVE-1", "package": "b", "reason": "r"}], "FOUND", 1),
        ([{"name": "a", "vulns": []}], [{"id": "CVE-1", "package": "a", "reason": "r"}], "no longer found", 0),
        ([{"name": "a", "vulns": []}, {"name": "b", "skip_reason": "?"}], [], "NOT CHECKED: 1 of 2", 2),
        ([], [], "NOT CHECKED", 2),
    ],
)  # fmt: skip
def test_an_audit_reports_known_problems_and_unchecked_packages(dependencies, accepted, expected, code):
    lines, found = audit().judge({"dependencies": dependencies}, accepted)
    assert any(line.startswith(expected) for line in lines), lines
    assert found == code


def test_an_audit_without_a_report_is_no_success():
    """As where pip-audit is not installed, or ends with an error."""
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / ".ci" / "audit.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout.startswith("NOT CHECKED"), done.stdout + done.stderr
