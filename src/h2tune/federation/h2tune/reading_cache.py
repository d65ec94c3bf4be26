"""What models made of public texts in earlier runs, kept in the cache folder: minutes to read, a second to load.

A file's name is a checksum of all that decides its content, so that nothing has to be judged out of date.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from h2tune import files
from h2tune.assets import cache_folder
from h2tune.federation.messages import Tensors, digest

ROOM = 2 * 2**30
"""Bytes of all files; the longest unused ones go first."""


class ReadingCache:
    """A folder of tensors by name, of bounded size; processes may share it.

    Args:
        folder: Where; created when something is kept.
        room: Bytes of all files. What takes more than a quarter of it is not kept.
    """

    def __init__(self, folder: Path, room: int = ROOM) -> None:
        self.folder, self.room = folder, room

    def get_or_compute(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return what is kept under a name; compute and keep it if it is not there or damaged.

        A folder that cannot be written is no error: it is computed again the next time.
        """
        path = self.folder / f"{name}.safetensors"
        found = _read(path)
        if found is None:
            found = compute()
            data = save({key: t.contiguous() for key, t in found.items()}, {"digest": digest(found)})
            with contextlib.suppress(OSError):
                if len(data) <= self.room // 4:
                    self._make_room(len(data))
                    files.write_bytes(path, data)
        return found

    def _make_room(self, wanted: int) -> None:
        there = []
        for path in self.folder.glob("*"):  # and what a crash left half written
            with contextlib.suppress(OSError):  # another process may rename or remove it just now
                if path.is_file():
                    there.append((path, path.stat()))
        free = self.room - sum(state.st_size for _, state in there)
        for path, state in sorted(there, key=lambda entry: entry[1].st_mtime):
            if free >= wanted:
                return
            path.unlink(missing_ok=True)
            free += state.st_size


def default_reading_cache() -> ReadingCache:
    """Return where this user's runs keep what models made of public texts."""
    return ReadingCache(cache_folder() / "readings")


def _read(path: Path) -> Tensors | None:
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it has keys() alone
            expected = (file.metadata() or {}).get("digest")
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return found if expected == digest(found) else None
