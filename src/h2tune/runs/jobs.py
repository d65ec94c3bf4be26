"""Clients of a round side by side in worker processes; results are the same to the bit for any number of them.

A worker process reads the resolved file in the run folder, and keeps the clients' data and base models in memory. It
gets a client's download, runs the round in one thread, and commits it to the run folder, where the run reads the reply.
Where there are several GPUs, each process sees one of them.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as safetensors_save

from h2tune.errors import H2TuneError
from h2tune.federation.channel import Downloads, Reply
from h2tune.federation.local_engine import LocalEngine
from h2tune.federation.messages import Download
from h2tune.runs.worker import train
from h2tune.runs.worker_start import start

IDLE = 3600
"""Seconds after which an idle worker ends."""
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_OPEN: list[Workers] = []
"""The processes of the outermost `workers`, which inner ones share."""
Item = TypeVar("Item")


class Workers:
    """Worker processes; each runs one client's round at a time, in one thread.

    Args:
        jobs: Their number.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs, self._pool = jobs, _pool_of(jobs)

    def submit(self, folder: Path, stage: str, client: str, download: Download) -> Future[str]:
        """Start a client's round in the next process that is free; see `train`."""
        tensors = safetensors_save({name: t.contiguous() for name, t in download.tensors.items()})
        with self._in_words():
            found: Future[str] = self._pool.submit(
                train, str(folder), stage, client, download.round, tensors, download.digest
            )
        return found

    def result(self, future: Future[str]) -> str:
        """Wait for what `submit` started, and return what `train` returned."""
        with self._in_words():
            return future.result()

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say in words that a process is gone, and make new ones for another run, such as the next of a comparison.

        Raises:
            H2TuneError: One was killed, or could not start.
        """
        try:
            yield
        except BrokenExecutor as error:
            self._pool = _pool_of(self.jobs)
            why = (
                " by SIGKILL, which is what a machine without memory left does"
                if "SIGKILL" in str(error)
                else ""
            )
            raise H2TuneError(
                f"a worker process was ended{why}",
                where="--jobs",
                remedy="Go on with --resume, with fewer --jobs if memory was short",
            ) from None

    def each(self, call: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Call a function that waits for these processes with every item, as many at a time as there are processes."""
        with ThreadPoolExecutor(self.jobs) as threads:
            calls = [threads.submit(call, item) for item in items]
            try:
                for one in calls:
                    one.result()
            except BaseException:
                for one in calls:
                    one.cancel()
                self.kill()  # a thread ends when its process does
                raise

    def close(self) -> None:
        """End the processes once they are idle."""
        self._pool.shutdown()

    def kill(self) -> None:
        """End the processes at once; a commit is whole or is not there."""
        self._pool.shutdown(kill_workers=True)  # type: ignore[call-arg]  # loky's own


@contextlib.contextmanager
def workers(jobs: int | None) -> Iterator[Workers | None]:
    """Yield worker processes, or those of an outer `workers`; None if no number of jobs is given.

    Args:
        jobs: Number of processes.

    Raises:
        H2TuneError: The number is below 1.
    """
    if jobs is None or _OPEN:
        yield None if jobs is None else _OPEN[-1]
        return
    if jobs < 1:
        raise H2TuneError(f"{jobs} is below 1", where="jobs", remedy="Give the number of processes")
    _OPEN.append(Workers(jobs))
    try:
        yield _OPEN[-1]
    except BaseException:
        _OPEN.pop().kill()
        raise
    else:
        _OPEN.pop().close()


class PooledEngine(LocalEngine):
    """Runs the clients' rounds in worker processes.

    Args:
        arguments: As in `LocalEngine`.
        pool: The processes.
        options: As in `LocalEngine`.
    """

    def __init__(self, *arguments: Any, pool: Workers, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pool = pool

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Run the chosen clients side by side, and yield their replies by name."""
        waiting: deque[tuple[str, Reply | Future[str]]] = deque()
        for client in sorted(downloads):
            known: Reply | Future[str] | None = self.stored(client, round_number)
            if known is None:
                known = self.pool.submit(self.store.folder, self.stage, client, downloads[client])
            waiting.append((client, known))
            if len(waiting) > 2 * self.pool.jobs:  # so that not all downloads are in memory at once
                yield self._reply(*waiting.popleft(), round_number)
        while waiting:
            yield self._reply(*waiting.popleft(), round_number)

    def _reply(self, client: str, known: Reply | Future[str], round_number: int) -> Reply:
        """Return a client's reply, once its process has committed it."""
        if isinstance(known, Reply):
            return known
        if self.starting is not None:
            self.starting(round_number, client)
        if reason := self.pool.result(known):
            return Reply(client, None, [], reason)
        reply = self.stored(client, round_number)
        if reply is None:
            where = str(self.store.folder / self.path(client, round_number))
            raise H2TuneError(
                "what a worker process wrote was altered", where=where, remedy="Go on with --resume"
            )
        if self.progress is not None:
            step = self.progress(client)
            for event in reply.events:
                for loss in event.get("losses", ()):
                    step(loss["step"], loss["phase"], loss["loss"])
        return reply


def _pool_of(jobs: int) -> Executor:
    """Return a pool, which starts its processes when it gets work."""
    from loky import ProcessPoolExecutor
    from loky.backend import get_context

    turns = None
    if len(names := gpus()) > 1:
        turns = get_context("loky").SimpleQueue()
        for name in names:
            turns.put(name)
    pool: Executor = ProcessPoolExecutor(
        jobs, timeout=IDLE, initializer=start, initargs=(turns,), env=ENVIRONMENT
    )
    return pool


def gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    seen = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",")] if named else [str(i) for i in range(seen)]
    return names[:seen]
