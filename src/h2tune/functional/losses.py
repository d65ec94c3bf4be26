"""The loss terms of equations (6), (7) and (14); pure."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

IGNORED = -100
"""Target of a position that is not scored (the usual value of PyTorch and Transformers)."""


def task_loss(
    logits: Float[Tensor, "batch kept classes"], targets: Int[Tensor, "batch kept"], items: Tensor | int
) -> Float[Tensor, ""]:
    """Return the sum of the cross-entropies divided by `items`: L_task of (6) and (7).

    `items` counts the targets of all micro-batches of an optimiser step, so that gradient accumulation does not change
    the gradient. A step of public texts alone has no target, and a loss of zero.
    """
    total = cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / max(items, 1) if isinstance(items, int) else total / items.clamp(min=1)


def size_penalty(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Return mean_k ‖θ_k‖₂ over the tensors θ_k of the shared phase: the λ_reg term of (6)."""
    return torch.stack([torch.linalg.vector_norm(p.float()) for p in parameters]).mean()


def drift(middles: Float[Tensor, "modules rr"], previous: Float[Tensor, "modules rr"]) -> Float[Tensor, ""]:
    """Return the mean over modules of KL(softmax vec T ‖ softmax vec T_prev): the λ_kl term of (6)."""
    return kl_div(
        log_softmax(previous.float(), dim=-1),
        log_softmax(middles.float(), dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def distillation(
    teacher: Float[Tensor, "batch kept classes"],
    student: Float[Tensor, "batch kept classes"],
    targets: Int[Tensor, "batch kept"],
    items: Tensor | int,
) -> Float[Tensor, ""]:
    """Return KL(p_teacher ‖ p_student) per scored position: the λ_kd term of (7).

    Args:
        teacher: Logits of the shared phase on the same batch; no gradient flows to them.
        student: Logits of the specific phase.
        targets: Positions with the target `IGNORED` are not scored.
        items: Number of scored positions in the optimiser step.
    """
    scored = targets != IGNORED
    return (
        kl_div(
            log_softmax(student[scored].float(), dim=-1),
            log_softmax(teacher.detach()[scored].float(), dim=-1),
            reduction="sum",
            log_target=True,
        )
        / items
    )


def teaching(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"], items: int
) -> Float[Tensor, ""]:
    """Return KL(q ‖ p) summed over the rows that have a teacher, divided by `items`: the μ term of (14).

    Args:
        logits: The student's, of the labels.
        targets: The teacher's probabilities; rows without a teacher are zero.
        items: Number of public texts in the optimiser step.
    """
    has_teacher = targets.sum(1) > 0
    return (
        kl_div(
            log_softmax(logits[has_teacher].float(), dim=-1), targets[has_teacher].float(), reduction="sum"
        )
        / items
    )
