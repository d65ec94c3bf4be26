"""Proof that federation happens: what would go unnoticed is looked for in every round.

Silent non-learning is the usual failure of federated fine-tuning: tensors that are loaded under the wrong names, sent
from before training, or overwritten by every forward pass. Each check here reads the model or the message itself, not
what the code meant to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from h2tune.federation.messages import Download, Tensors

KINDS = {"h2tune_delta": "delta", "h2tune_scores": "scores", "relation.": "relation"}
KINDS |= {"h2tune_down": "down", "h2tune_up": "up", "lora_A": "down", "lora_B": "up"}
KINDS |= {".middle": "delta", ".offset": "delta"}


def kind_of(name: str) -> str:
    """Return what a trained parameter is: delta, scores, relation, down, up, or head."""
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
) -> list[dict[str, Any]]:
    """Return a warning event for everything that a working round does not show.

    Args:
        client: The client's name.
        round_number: Number of the round.
        download: What the server sent.
        loaded_digest: Checksum of what the model holds of it.
        sent: The update's tensors.
        learned: What was learned, measured on the model.
        movement: As from `moved`.
        without_gradient: Trained parameters whose gradient stayed zero.
    """
    found: list[tuple[str, str]] = []
    if loaded_digest != download.digest:
        found.append(("download_not_loaded", "the model does not hold what the server sent"))
    for kind, distance in movement.items():
        # M is zero in the first round, so the relation has nothing to mix and cannot learn yet
        if distance == 0 and not (kind == "relation" and round_number == 0):
            found.append(("did_not_move", f"no {kind} parameter changed in this round"))
    names = [n for n in sorted(without_gradient) if not (kind_of(n) == "relation" and round_number == 0)]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        found.append(("no_gradient", f"{names[0]}{more} got no gradient"))
    for name, tensor in learned.items():
        if name not in sent or not torch.equal(tensor.cpu(), sent[name].cpu()):
            found.append(("upload_differs", f"'{name}' was not sent as the model learned it"))
            break
    if learned and not any(bool(tensor.any()) for tensor in learned.values()):
        found.append(("nothing_learned", "the shared part did not change in training"))
    return [warning(client, round_number, code, message) for code, message in found]


def warning(client: str, round_number: int, code: str, message: str) -> dict[str, Any]:
    """Return the event that warns of something; `client` is empty where it concerns them all."""
    return {"event": "warning", "client": client, "round": round_number, "code": code, "message": message}
