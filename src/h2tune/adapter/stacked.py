"""Parameters that hold several matrices in one, which no adapter of a linear layer reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from h2tune.errors import H2TuneError


def refuse_stacked(model: nn.Module, skip: str, where: str) -> list[str]:
    """Return the names of `stacked_weights` if all are skipped on purpose; refuse the model otherwise.

    Args:
        model: The model.
        skip: Pattern of what the client leaves out on purpose; "" for nothing.
        where: What is refused, for the error.

    Raises:
        H2TuneError: Names the weights, and the setting that leaves them out.
    """
    stacked = stacked_weights(model)
    missed = [name for name in stacked if not skips(skip, [name])]
    if missed:
        holders = dict.fromkeys(name.split(".")[-2] for name in missed)
        raise H2TuneError(
            f"'{missed[0]}' holds {' × '.join(map(str, stacked[missed[0]]))} weights in one, as mixtures of experts "
            "do, and cannot be adapted",
            where=where,
            remedy=f'Use another model, or adapt the rest alone: roles = {{ skip = "{"|".join(holders)}" }}',
        )
    return list(stacked)


def skips(pattern: str, names: Iterable[str]) -> bool:
    """Return whether a pattern to skip names one of these parameters, or a module that holds it."""
    if not pattern:
        return False
    try:
        matcher = re.compile(rf"(?:.*\.)?(?:{pattern})")
    except re.error:  # `find_roles` says so
        return False
    return any(matcher.fullmatch(name) or matcher.fullmatch(name.rpartition(".")[0]) for name in names)


def stacked_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return name → shape of the parameters in numbered blocks that hold several matrices in one.

    Such are the experts of a mixture in Transformers 5, and XLNet's attention: no adapter of a linear layer sees them.
    """
    convolutions = {
        name for name, module in model.named_modules() if isinstance(module, nn.modules.conv._ConvNd)
    }
    return {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if sum(size > 1 for size in parameter.shape) > 2
        and any(part.isdigit() for part in name.split("."))
        and name.rpartition(".")[0] not in convolutions
    }
