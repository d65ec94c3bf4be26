"""A method's adapter on a client's base model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Tensors
from h2tune.federation.strategy import AdaptedModel, Strategy
from h2tune.heads import head_modules, set_head
from h2tune.models import base_seed
from h2tune.seeds import derive
from h2tune.training.local import training_device

HeadStart = Callable[[PreTrainedModel], None]
"""Sets the last layer of a classifier's new head."""


def attach_adapter(
    base: PreTrainedModel,
    client: LocalClient,
    strategy: Strategy[Any],
    state: Tensors | None,
    frames: Tensors | None = None,
    head_start: HeadStart | None = None,
) -> AdaptedModel:
    """Attach the strategy's adapter to a client's base model, and load the client's state.

    Args:
        base: The base model.
        client: The client.
        strategy: The method.
        state: The client's private state; None in its first round.
        frames: The client's frames, in an anchored basis.
        head_start: Sets the new head's last layer.
    """
    heads = prepare_base(base, client)
    if head_start is not None:
        head_start(base)
    seed = base_seed(client.seed, client.enrolment.model)
    adapted = strategy.attach(base, client.enrolment, heads=heads, seed=seed)
    try:
        if frames is not None:
            adapted.set_frames(frames)
        if state is not None:
            adapted.load_state(state)
    except BaseException:
        adapted.detach()  # the base model is shared by clients: remove the adapter of one that failed
        raise
    return adapted


def prepare_base(base: PreTrainedModel, client: LocalClient) -> list[str]:
    """Prepare a base model for a client's adapter, and return the names of its trained heads.

    The model is moved to the Trainer's device, so that the adapter is created there. A classifier gets a new last
    layer for the client's labels.
    """
    device = training_device(client.training)
    if base.device != device:
        base.to(device)
    if client.causal:
        return []
    heads = head_modules(base)
    set_head(base, client.task.labels, derive(client.seed, "head", client.name))
    return heads
