"""Silence Transformers' messages and progress bars."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Transformers' messages and progress bars in a block; errors are still raised."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    bar = transformers.logging.is_progress_bar_enabled()
    loud = verbosity != transformers.logging.ERROR  # a level that is set clears the cache of every logger
    if loud:
        transformers.logging.set_verbosity_error()
    if bar:
        transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.21 reads an attribute that transformers 5.24 deprecates
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        if loud:
            transformers.logging.set_verbosity(verbosity)
        if bar:
            transformers.logging.enable_progress_bar()
