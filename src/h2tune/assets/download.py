"""Download package files with pip, and verify their pinned checksums."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from h2tune.assets.catalogue import Package
from h2tune.errors import H2TuneError
from h2tune.files import sha256_file, sync_folder


def download(package: Package, folder: Path, retry: str) -> Path:
    """Return the package's file in `folder` after verifying its checksum; it is downloaded if it is missing.

    pip uses its own configuration, and so the user's index, proxy and certificates. It gets the checksum as well, and
    rejects another file before opening it.

    Args:
        package: The pinned file.
        folder: Folder of package files; a file that was put there manually is used.
        retry: The command that repeats the fetch, for messages.

    Raises:
        H2TuneError: The file cannot be downloaded, or its checksum is not the pinned one.
    """
    target = folder / package.file
    if target.exists():
        _verify(target, package, f"Delete {target} and run `{retry}` again")
        return target
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{package.file}.", suffix=".tmp") as temporary:
        _run_pip(package, Path(temporary), target, retry)
        files = list((Path(temporary) / "files").iterdir())
        if len(files) != 1:
            raise H2TuneError(f"pip downloaded {len(files)} files, expected one", where=package.file)
        _verify(files[0], package, f"Run `{retry}` again; if that fails, the index serves another file")
        files[0].replace(target)
        sync_folder(folder)
    return target


def _run_pip(package: Package, temporary: Path, target: Path, retry: str) -> None:
    requirement = temporary / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--progress-bar=off", "--require-hashes"]
    # By name, not :all:, which would apply to the build requirements of a source archive as well.
    command += ["--no-binary" if package.is_source else "--only-binary", package.name]
    if package.platform:
        command += ["--platform", package.platform]
    command += [f"--dest={temporary / 'files'}", f"--requirement={requirement}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    if result.returncode == 0:
        return
    manually = f"put {package.file} into {target.parent} manually and run `{retry}` again"
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise H2TuneError(
            "the package index serves a file whose SHA-256 is not the pinned one",
            where=package.file,
            remedy=f"It was deleted. Use another index, or {manually}",
        )
    if "No module named pip" in result.stderr:
        raise H2TuneError(
            f"{sys.executable} has no pip",
            where=package.file,
            remedy=f"Run `{sys.executable} -m ensurepip`, or {manually}",
        )
    errors = [line for line in result.stderr.splitlines() if line.strip()]
    reason = next(
        (line for line in errors if line.startswith("ERROR")), errors[-1] if errors else "no message"
    )
    raise H2TuneError(
        f"could not fetch {package.name} {package.version} from the package index ({reason.strip()})",
        where=package.file,
        remedy=f"Check the connection and run `{retry}` again (finished downloads are reused), or {manually}",
    )


def _verify(file: Path, package: Package, remedy: str) -> None:
    actual = sha256_file(file)
    if actual != package.sha256:
        raise H2TuneError(
            f"SHA-256 is {actual}, expected {package.sha256}",
            where=str(file),
            remedy=f"The file is not used. {remedy}",
        )
