"""A run folder, written so that an interrupted run can be resumed with the same results.

Work is split into units (a client's round, an aggregation). A unit commits its results and events atomically as a
folder; then its events are appended to `events.jsonl`. After a crash, a committed unit is not repeated, and its events
are logged if they were not. Any other unit is repeated from the same state, with the same seeds.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save as safetensors_save
from torch import Tensor

from h2tune import files
from h2tune.errors import H2TuneError
from h2tune.events import Event, standing
from h2tune.federation.messages import tensors_from_bytes

LAST_UNIT = "last-unit.jsonl"
"""File of the lines that a start removed from the log, until they are logged again."""
Commit = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]
"""Tensors by file and name, and facts; see `RunStore.commit`."""


class RunStore:
    """The record of one run.

    Args:
        folder: The run folder; created if it is not there.
        resume: Whether to continue the run in it.
        clock: Returns seconds since the epoch.
        commits_only: Whether another process has the run open, and this one writes commits for it, and no log.

    Raises:
        H2TuneError: The folder has a run already (without `resume`), has a damaged log, cannot be written, or another
            process uses it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume: bool = False,
        clock: Callable[[], float] = time.time,
        commits_only: bool = False,
    ) -> None:
        self.folder, self.clock, self._logging = folder, clock, threading.Lock()
        self.logged: set[str] = set()
        self.follow: Callable[[str], None] | None = None
        """Called with each line after it was written to the log."""
        self.events_file = folder / "events.jsonl"
        if not commits_only:
            self._open(resume)

    def _open(self, resume: bool) -> None:
        """Lock the folder, and read which units are logged."""
        folder = self.folder
        started = self.events_file.exists()
        if started and not resume:
            raise H2TuneError(
                "holds a run already", where=str(folder), remedy="Go on with --resume, or name another --out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "run.lock").open("w")
        except OSError as error:
            raise H2TuneError(
                f"cannot be written ({error.strerror})",
                where=str(folder),
                remedy="Choose another folder (h2tune run: --out)",
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise H2TuneError(
                "another process is running in this folder",
                where=str(folder),
                remedy="Wait, or choose another folder (h2tune run: --out)",
            ) from None
        files.sweep(folder)
        self._removed: list[bytes] = []
        try:
            if started:
                self.logged = self._reconcile()
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Put the log's last unit back if it was not logged again, and release the lock on the folder."""
        if self._lock.closed:
            return
        try:
            self.put_back()
        finally:
            self._lock.close()

    @property
    def unlogged(self) -> str:
        """The log's last unit, which was removed when the run was opened, until it is logged again; "" afterwards."""
        unit = str(json.loads(self._removed[0])["unit"]) if self._removed else ""
        return "" if unit in self.logged else unit

    def put_back(self) -> None:
        """Put the log's last unit back as it was, if it was not logged again."""
        if unit := self.unlogged:
            self._append([line.decode() for line in self._removed])
            self.logged.add(unit)
        (self.folder / LAST_UNIT).unlink(missing_ok=True)
        self._removed = []

    def record(
        self, unit: str, events: Sequence[Event], notice: Callable[[Event], None] | None = None
    ) -> None:
        """Append a unit's events to the log, in one write that is flushed to disk; does nothing if it is logged.

        Args:
            unit: Name of the unit.
            events: Its events.
            notice: Called with every new event.
        """
        with self._logging:  # clients that train alone side by side are logged by threads
            if unit not in self.logged:
                self._record(unit, events, notice)

    def _record(self, unit: str, events: Sequence[Event], notice: Callable[[Event], None] | None) -> None:
        if notice is not None:
            for event in events:
                notice(event)
        removed = unit == self.unlogged
        self._append(
            [json.dumps({**event, "unit": unit, "time": round(self.clock(), 3)}) for event in events]
        )
        self.logged.add(unit)
        if removed:
            (self.folder / LAST_UNIT).unlink(missing_ok=True)

    def _append(self, lines: Sequence[str]) -> None:
        with self.events_file.open("a", encoding="utf-8") as stream:
            stream.write("".join(line + "\n" for line in lines))
            stream.flush()
            os.fsync(stream.fileno())
        if self.follow is not None:
            for line in lines:
                self.follow(line + "\n")

    def commit(
        self, path: str, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]
    ) -> None:
        """Write a unit's results atomically, as a folder.

        Args:
            path: Folder, relative to the run folder.
            tensors: File name (without ending) → tensors.
            facts: JSON values.
        """
        target = self.folder / path
        if target.parent.exists():
            files.sweep(target.parent)
        with files.new_folder(target) as temporary:
            sums = {}
            for name, content in tensors.items():
                data = safetensors_save({key: t.contiguous() for key, t in content.items()})
                (temporary / f"{name}.safetensors").write_bytes(data)
                sums[name] = files.sha256(data)
            whole = {"path": path, "facts": dict(facts), "sha256": sums}
            (temporary / "facts.json").write_text(json.dumps({**whole, "seal": _seal(whole)}))

    def committed(self, path: str) -> Commit | None:
        """Return a commit, or None if it is missing, was altered, or was committed at another path."""
        folder = self.folder / path
        try:
            raw = (folder / "facts.json").read_text()
            content = json.loads(raw)
            # also a tab for a space, which changes no value, is not what was written
            if json.dumps(content) != raw or content["path"] != path or content.pop("seal") != _seal(content):
                return None
            tensors = {}
            for name, expected in content["sha256"].items():
                data = (folder / f"{name}.safetensors").read_bytes()
                if files.sha256(data) != expected:
                    return None
                tensors[name] = tensors_from_bytes(data, str(folder))
            facts: dict[str, Any] = content["facts"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, H2TuneError):
            return None
        return tensors, facts

    def is_damaged(self, path: str) -> bool:
        """Return whether `path` exists, but is not an intact commit."""
        return (self.folder / path).exists() and self.committed(path) is None

    def get_or_compute(self, path: str, compute: Callable[[], Commit]) -> Commit:
        """Return the commit at `path`; compute and commit it if there is none."""
        commit = self.committed(path)
        if commit is None:
            commit = compute()
            self.commit(path, *commit)
        return commit

    def remove(self, path: str) -> None:
        """Remove a commit that is no longer needed."""
        shutil.rmtree(self.folder / path, ignore_errors=True)

    def _reconcile(self) -> set[str]:
        """Remove an incomplete line and the last unit from the log, and return the other units.

        The last unit is logged again from its commit. Until then its lines are kept in a file, so that a run that is
        killed again and again before that loses no unit.

        Raises:
            H2TuneError: A line is not an event of a run.
        """
        *whole, _torn = self.events_file.read_bytes().split(b"\n")
        events = [_logged(line, f"{self.events_file}, line {i}") for i, line in enumerate(whole, 1)]
        whole, events = self._with_kept(whole, events)
        if not events:
            return set()
        last = events[-1]["unit"]
        while events and events[-1]["unit"] == last:  # not an earlier unit of that name, which was taken back
            events.pop()
        self._removed = whole[len(events) :]
        files.write_bytes(self.folder / LAST_UNIT, b"".join(line + b"\n" for line in self._removed))
        files.write_bytes(self.events_file, b"".join(line + b"\n" for line in whole[: len(events)]))
        return {event["unit"] for event in standing(events)}

    def _with_kept(self, whole: list[bytes], events: list[Event]) -> tuple[list[bytes], list[Event]]:
        """Return lines and events of the log with those that an earlier start removed, if they are still missing."""
        path = self.folder / LAST_UNIT
        *kept, _torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
        removed = [_logged(line, f"{path}, line {i}") for i, line in enumerate(kept, 1)]
        if not removed or removed[0]["unit"] in {event["unit"] for event in standing(events)}:
            return whole, events
        return whole + kept, events + removed


def _logged(line: bytes, where: str) -> Event:
    try:
        event = json.loads(line.decode())
        if isinstance(event, dict) and isinstance(event.get("unit"), str) and "event" in event:
            return event
    except (ValueError, RecursionError):
        pass
    raise H2TuneError(
        "this line is not an event of a run",
        where=where,
        remedy="The file was altered after the run wrote it; restore it from a copy, or start a new run",
    )


def _seal(content: Mapping[str, Any]) -> str:
    """Return a checksum over a commit's path, facts and the checksums of its tensors."""
    return files.sha256(json.dumps(content, sort_keys=True).encode())
