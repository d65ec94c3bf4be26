"""Package files from the package index, by pip, checked against their pinned checksums."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from h2tune.assets.catalogue import Package
from h2tune.errors import H2TuneError
from h2tune.files import sha256_file, sync_folder


def download(package: Package, folder: Path, retry: str) -> Path:
    """Return the package's file in `folder`, downloaded unless it is there, its checksum verified.

    pip reads its own configuration, so the user's index, proxy and certificates are those of any other
    installation. It is given the checksum too and refuses another file before it looks into it.

    Args:
        package: The pinned file.
        folder: Where package files are kept; a file put there by hand is taken.
        retry: The command that fetches again, for messages.

    Raises:
        H2TuneError: The file cannot be had, or its checksum is not the pinned one.
    """
    target = folder / package.file
    if target.exists():
        _verify(target, package, f"Delete {target} and run `{retry}` again")
        return target
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{package.file}.", suffix=".tmp") as temporary:
        _run_pip(package, Path(temporary), target, retry)
        files = list((Path(temporary) / "files").iterdir())
        if len(files) != 1:
            raise H2TuneError(f"pip left {len(files)} files, one was expected", where=package.file)
        _verify(files[0], package, f"Run `{retry}` again; if it goes on, the index serves another file")
        files[0].replace(target)
        sync_folder(folder)
    return target


def _run_pip(package: Package, temporary: Path, target: Path, retry: str) -> None:
    requirement = temporary / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off", "--require-hashes"]
    # By name, not :all:, which would hold for what a source archive needs to be read as well.
    command += ["--no-binary" if package.is_source else "--only-binary", package.name]
    if package.platform:
        command += ["--platform", package.platform]
    command += [f"--dest={temporary / 'files'}", f"--requirement={requirement}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    if result.returncode == 0:
        return
    by_hand = f"put {package.file} into {target.parent} by hand and run `{retry}` again"
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise H2TuneError(
            "the package index serves a file whose SHA-256 is not the pinned one",
            where=package.file,
            remedy=f"It was not kept. Use another index, or {by_hand}",
        )
    if "No module named pip" in result.stderr:
        raise H2TuneError(
            f"{sys.executable} has no pip to download with",
            where=package.file,
            remedy=f"Run `{sys.executable} -m ensurepip`, or {by_hand}",
        )
    errors = [line for line in result.stderr.splitlines() if line.strip()]
    reason = next(
        (line for line in errors if line.startswith("ERROR")), errors[-1] if errors else "no message"
    )
    raise H2TuneError(
        f"could not fetch {package.name} {package.version} from the package index ({reason.strip()})",
        where=package.file,
        remedy=f"Check the connection and run `{retry}` again (what is already there is kept), or {by_hand}",
    )


def _verify(file: Path, package: Package, remedy: str) -> None:
    found = sha256_file(file)
    if found != package.sha256:
        raise H2TuneError(
            f"SHA-256 is {found}, {package.sha256} is pinned",
            where=str(file),
            remedy=f"It is not used. {remedy}",
        )
