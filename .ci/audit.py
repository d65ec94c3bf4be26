"""Ask pip-audit whether the pinned versions have known vulnerabilities, and say so when it could not find out.

    make audit

Exit code 0: every package was looked up; nothing was found but what audit.toml accepts. 1: something else was found. 2:
NOT CHECKED, all or some: pip-audit itself ends with 0 when it could look nothing up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip",
           "--format", "json", "--progress-spinner", "off", "--timeout", "30")  # fmt: skip


def judge(report: Mapping[str, Any], accepted: Sequence[Mapping[str, str]]) -> tuple[list[str], int]:
    """Return what there is to say about pip-audit's report, and the exit code.

    Args:
        report: What pip-audit wrote.
        accepted: Entries with id, package and reason.
    """
    lines, found, failed = [], set(), False
    reasons = {(entry["id"], entry["package"].lower()): entry["reason"].strip() for entry in accepted}
    for package in report["dependencies"]:
        for finding in package.get("vulns", []):
            names = {finding["id"], *finding.get("aliases", [])}
            key = next(
                ((i, package["name"].lower()) for i in names if reasons.get((i, package["name"].lower()))),
                None,
            )
            told = f"{package['name']} {package.get('version', '')}: {finding['id']}"
            if key is None:
                failed = True
                lines.append(
                    f"FOUND: {told}; mended in {', '.join(finding.get('fix_versions', [])) or 'no version'}"
                )
            else:
                found.add(key)
                lines.append(f"accepted: {told}: {reasons[key]}")
    lines += [
        f"no longer found, take it out of audit.toml: {key[1]} {key[0]}" for key in reasons.keys() - found
    ]
    skipped = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    count = len(report["dependencies"])
    if skipped or not count:
        some = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        lines.append(f"NOT CHECKED: {len(skipped)} of {count} packages could not be looked up ({some})")
    else:
        lines.append(f"checked: {count} packages")
    return lines, 1 if failed else 2 if skipped or not count else 0


def main() -> int:
    """Run pip-audit and print what it comes to."""
    accepted = tomllib.loads((ROOT / "audit.toml").read_text()).get("accepted", [])
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - constant
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"NOT CHECKED: pip-audit gave no report ({last})")
        return 2
    lines, code = judge(report, accepted)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
