"""Cache on disk of models' states on public texts, which take minutes to compute and a second to load.

A file's name is a checksum of everything that its content depends on, so entries never become stale.
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

SMALL = 5_000_000
"""Models with fewer parameters skip the cache on disk, since reading the texts is faster than the look-up."""
ROOM = 2 * 2**30
"""Bytes of all files; the least recently used are removed first."""


class ReadingCache:
    """A folder of tensors by name, of bounded size; processes may share it.

    Args:
        folder: Created on the first write.
        room: Bytes of all files. An entry of more than a quarter of it is not stored.
    """

    def __init__(self, folder: Path, room: int = ROOM) -> None:
        self.folder, self.room = folder, room

    def get_or_compute(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return the tensors stored under a name; compute and store them if they are missing or damaged.

        A folder that cannot be written is not an error: the tensors are computed again the next time.
        """
        path = self.folder / f"{name}.safetensors"
        tensors = _read(path)
        if tensors is None:
            tensors = compute()
            data = save({key: t.contiguous() for key, t in tensors.items()}, {"digest": digest(tensors)})
            with contextlib.suppress(OSError):
                if len(data) <= self.room // 4:
                    self._make_room(len(data))
                    files.write_bytes(path, data)
        return tensors

    def _make_room(self, wanted: int) -> None:
        entries = []
        for path in self.folder.glob("*"):  # includes temporary files that a crash left
            with contextlib.suppress(OSError):  # another process may rename or remove it meanwhile
                if path.is_file():
                    entries.append((path, path.stat()))
        free = self.room - sum(state.st_size for _, state in entries)
        for path, state in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if free >= wanted:
                return
            path.unlink(missing_ok=True)
            free += state.st_size


def default_reading_cache() -> ReadingCache:
    """Return the cache in this user's cache folder."""
    return ReadingCache(cache_folder() / "readings")


def _read(path: Path) -> Tensors | None:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
            expected = (file.metadata() or {}).get("digest")
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return tensors if expected == digest(tensors) else None
