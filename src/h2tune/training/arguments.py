"""Arguments of `transformers.Trainer` from a federation file: which are allowed, and h2tune's own defaults."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType

from h2tune.errors import H2TuneError, nearest
from h2tune.quiet import quiet
from h2tune.training.allowed import honoured, reasons

DEFAULTS = {
    "save_strategy": "no",
    "report_to": "none",
    "logging_strategy": "no",
    "dataloader_pin_memory": False,
}
"""Defaults of h2tune that differ from the Trainer's."""


@functools.cache
def output_folder() -> str:
    """Return the folder that the Trainer requires and h2tune does not use: an empty one, removed at exit."""
    folder = tempfile.mkdtemp(prefix="h2tune-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def device_of(arguments: str) -> torch.device:
    """Return the device on which the Trainer trains with these arguments, given as JSON."""
    with quiet():
        return TrainingArguments(output_dir=output_folder(), **{**DEFAULTS, **json.loads(arguments)}).device


def check_arguments(arguments: Mapping[str, Any], scheduler: str) -> None:
    """Validate a federation file's Trainer arguments by name: unknown ones, and those that would have no effect.

    Raises:
        H2TuneError: An argument or scheduler is refused; the message names it and the closest known name.
    """
    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    allowed, why = honoured(), reasons()
    for name in arguments:
        if name not in known:
            raise H2TuneError(f"no argument '{name}'{nearest(name, known)}", where="train.arguments")
        if name not in allowed:
            reason = why.get(name, "h2tune was not tried with it")
            raise H2TuneError(
                f"'{name}' is refused: {reason}", where="train.arguments", remedy="Leave it out"
            )
    schedulers = [kind.value for kind in SchedulerType]
    if scheduler not in schedulers:
        raise H2TuneError(
            f"no scheduler '{scheduler}'{nearest(scheduler, schedulers)}", where="train.scheduler"
        )
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        if (arguments.get(name) or {}).get("use_reentrant"):
            raise H2TuneError(
                "use_reentrant runs the backward pass of each block alone, but M is computed once for all blocks",
                where=f"train.arguments.{name}",
                remedy="Leave use_reentrant out; the result of training is the same",
            )


def try_arguments(arguments: Mapping[str, Any]) -> None:
    """Validate Trainer arguments on the machine that trains, such as for a missing dtype of its device or library.

    Raises:
        H2TuneError: The Trainer refuses them.
    """
    if not arguments:
        return
    with quiet():
        try:
            TrainingArguments(output_dir=output_folder(), **{**DEFAULTS, **arguments})
        except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
            raise H2TuneError(
                f"the Trainer refuses them: {str(error).strip(' .')}",
                where="train.arguments",
                remedy="Change or leave out what it names; with use_cpu = true it trains on the CPU",
            ) from error
