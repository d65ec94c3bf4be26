"""Silence what libraries print that is not meant for the user."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


def without_kernel_warning() -> None:
    """Leave out bitsandbytes' warning, on some processors, of a kernel that nothing here uses.

    It comes when peft is imported, in every process that does: the command line, Flower's apps, scripts, notebooks.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_not_of_the_kernel)


def _not_of_the_kernel(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


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
