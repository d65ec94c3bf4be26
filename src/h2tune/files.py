"""Atomic files and folders: write under a temporary name, flush to disk, rename."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARED = 2**16
"""Least size in bytes of a file that `share` stores once."""


def write_bytes(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the new one, never a part.

    Args:
        path: The file.
        data: Its content.
        mode: Who may read it; its user alone by default.

    Of a link, what it points to is written; what is no file, such as a pipe, takes the data as it is.
    """
    with _naming(path):
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the file system name `path`, and not a temporary file beside it.

    Raises:
        OSError: The same, with that name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    """Write text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode(), mode)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def share(folder: Path, other: Path) -> None:
    """Store files that are the same in two folders once on disk: those of `other` become hard links.

    A copy of either folder is whole. Small files stay apart, as people edit them in place; so do all where the file
    system has no links.

    Args:
        folder: A folder.
        other: A folder with some files of the same names and content.
    """
    for file in folder.iterdir():
        twin = other / file.name
        if not twin.is_file() or twin.samefile(file) or file.stat().st_size < SHARED:
            continue
        if not filecmp.cmp(file, twin, shallow=False):
            continue
        temporary = twin.with_name(f".{twin.name}.link.tmp")
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(file)
        except OSError:
            return
        temporary.replace(twin)
    sync_folder(other)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `path` if the block ends without an error."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove temporary files that an interrupted `write_bytes` or `new_folder` left in `folder`, not below it."""
    for entry in folder.glob(".*"):
        if entry.name.endswith((".tmp", ".old")):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
