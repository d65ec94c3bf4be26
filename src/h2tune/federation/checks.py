"""Checks in every round that federation really happens.

Silent non-learning is the usual failure of federated fine-tuning: tensors are loaded under the wrong names, sent as
they were before training, or overwritten by every forward pass. Each check reads the model or the message itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from h2tune.errors import H2TuneError
from h2tune.federation.messages import Download, Tensors

KINDS = {"h2tune_delta": "delta", "h2tune_scores": "scores", "relation.": "relation"}
KINDS |= {"h2tune_down": "down", "h2tune_up": "up", "lora_A": "down", "lora_B": "up"}
KINDS |= {".middle": "delta", ".offset": "delta"}


def kind_of(name: str) -> str:
    """Return the kind of a trained parameter: delta, scores, relation, down, up, or head."""
    return next((kind for part, kind in KINDS.items() if part in name), "head")


def snapshot(parameters: Mapping[str, nn.Parameter]) -> Tensors:
    """Return copies of the parameters on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}


def moved(before: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Return how far each kind of parameter moved: the L2 norm of its change."""
    squares: dict[str, float] = {}
    for name, parameter in parameters.items():
        change = parameter.detach().cpu().float() - before[name].float()
        kind = kind_of(name)
        squares[kind] = squares.get(kind, 0.0) + float(change.square().sum())
    return {kind: square**0.5 for kind, square in sorted(squares.items())}


def warnings_of(
    *,
    client: str,
    round_number: int,
    download: Download,
    loaded_digest: str,
    sent: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    movement: Mapping[str, float],
    without_gradient: Iterable[str],
    trained: bool = True,
) -> list[dict[str, Any]]:
    """Return a warning event for each symptom of a round that does not work.

    Args:
        client: The client's name.
        round_number: Number of the round.
        download: What the server sent.
        loaded_digest: Checksum of the server's tensors as read from the model.
        sent: The update's tensors.
        learned: The update as measured on the model.
        movement: From `moved`.
        without_gradient: Trained parameters whose gradient stayed zero.
        trained: Whether there was anything to train on; a client without labels and without a teacher has nothing.
    """
    warnings: list[tuple[str, str]] = []
    if loaded_digest != download.digest:
        warnings.append(("download_not_loaded", "the model does not hold what the server sent"))
    for kind, distance in movement.items():
        # M is zero in the first round, so the relation has nothing to mix and cannot learn yet
        if trained and distance == 0 and not (kind == "relation" and round_number == 0):
            warnings.append(("did_not_move", f"no {kind} parameter changed in this round"))
    names = [n for n in sorted(without_gradient) if not (kind_of(n) == "relation" and round_number == 0)]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.append(("no_gradient", f"{names[0]}{more} got no gradient"))
    for name, tensor in learned.items():
        if name not in sent or not torch.equal(tensor.cpu(), sent[name].cpu()):
            warnings.append(("upload_differs", f"'{name}' was not sent as the model learned it"))
            break
    if trained and learned and not any(bool(tensor.any()) for tensor in learned.values()):
        warnings.append(("nothing_learned", "the shared part did not change in training"))
    return [warning(client, round_number, code, message) for code, message in warnings]


FAR = 100.0
"""An update of this many times the median norm of the others is a warning."""


def far_updates(sizes: Mapping[str, float | None], round_number: int) -> list[dict[str, Any]]:
    """Return a warning for each update that is far larger than the others of its round.

    Args:
        sizes: Client → norm of what it learned; None if it is unknown.
        round_number: Number of the round.
    """
    warnings = []
    for client, size in sizes.items():
        others = [other for name, other in sizes.items() if name != client and other is not None]
        if size is None or len(others) < 2 or size <= FAR * (usual := median(others)) or not usual:
            continue
        message = f"its update has a norm of {size:.3g}; the median of the others is {usual:.3g}"
        warnings.append(warning(client, round_number, "update_far", message))
    return warnings


def check_shared(
    following: Mapping[str, Tensor], sizes: Mapping[str, float | None], round_number: int, largest: float
) -> None:
    """Refuse the server's tensors after a round, before they are committed, if a value is not finite or too large.

    Args:
        following: The tensors.
        sizes: Client → norm of what it learned; None if it is unknown.
        round_number: Number of the round.
        largest: The largest value that honest training comes near; see `Strategy.largest`.

    Raises:
        H2TuneError: Names the client with the largest update.
    """
    values = [t for t in following.values() if t.is_floating_point() and t.numel()]
    if not all(bool(torch.isfinite(t).all()) for t in values):
        problem = "is no longer finite"
    elif (reached := max((float(t.abs().max()) for t in values), default=0.0)) > largest:
        problem = f"has values up to {reached:.3g}; honest training stays below {largest:.0e}"
    else:
        return
    known = {name: size for name, size in sizes.items() if size is not None}
    client = max(known, key=lambda name: known[name], default="")
    named = (
        f"; the largest update is that of client '{client}', of norm {known[client]:.3g}" if client else ""
    )
    raise H2TuneError(
        f"what is shared {problem}{named}",
        where=f"round {round_number}",
        remedy="Leave that client out, or set server.refuse_far or a robust rule (server.aggregation); the round was "
        "not stored",
    )


def warning(client: str, round_number: int, code: str, message: str) -> dict[str, Any]:
    """Return a warning event; `client` is empty if it concerns all clients."""
    return {"event": "warning", "client": client, "round": round_number, "code": code, "message": message}
