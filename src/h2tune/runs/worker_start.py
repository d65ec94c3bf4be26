"""How a worker process of `jobs` starts; in a file that imports nothing heavy, as its first part must come first."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
from typing import Any


def start(turns: Any) -> None:
    """Prepare this process: Ctrl-C is for the run, which ends its workers; the rest is as in the command line.

    Args:
        turns: A queue of the names of GPUs, of which this process sees the next one, and puts it back for later
            processes; None where there is one GPU or none.
    """
    if turns is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu = turns.get()
        turns.put(gpu)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(50_000, 20, 100)
    import torch

    from h2tune.training.garbage import garbage_collection_frozen

    torch.set_num_threads(1)
    until_the_end = contextlib.ExitStack()
    until_the_end.enter_context(garbage_collection_frozen())
    atexit.register(until_the_end.close)  # before the modules that it needs are gone
