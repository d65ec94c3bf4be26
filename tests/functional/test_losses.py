"""Equations (6) and (7), against numbers worked out by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import rel_entr, softmax

from h2tune.functional import losses


def test_task_loss_counts_only_scored_positions_and_divides_by_the_given_items():
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    targets = torch.tensor([[0, 0], [1, losses.IGNORED]])
    assert math.isclose(float(losses.task_loss(logits, targets, 3)), 2 * math.log(2) / 3, rel_tol=1e-6)


def test_accumulation_changes_nothing():
    logits, targets = (
        torch.randn(8, 2, 5, generator=torch.Generator().manual_seed(0)),
        torch.arange(16).view(8, 2) % 5,
    )
    whole = losses.task_loss(logits, targets, 16)
    parts = sum(losses.task_loss(logits[i : i + 2], targets[i : i + 2], 16) for i in range(0, 8, 2))
    assert torch.allclose(whole, parts)


def test_size_penalty_is_the_mean_of_the_norms_and_has_a_gradient_at_zero():
    some = [torch.tensor([3.0, 4.0]), torch.zeros(2, requires_grad=True)]
    penalty = losses.size_penalty(some)
    assert float(penalty.detach()) == 2.5
    penalty.backward()
    assert torch.isfinite(some[1].grad).all()


def test_drift_is_the_kl_of_the_softmaxes():
    now, before = np.array([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]]), np.array([[0.5, 2.0, 1.0], [0.0, 0.0, 3.0]])
    expected = rel_entr(softmax(now, 1), softmax(before, 1)).sum(1).mean()
    assert math.isclose(float(losses.drift(torch.tensor(now), torch.tensor(before))), expected, rel_tol=1e-5)
    assert float(losses.drift(torch.tensor(now), torch.tensor(now))) == 0


def test_distillation_is_the_kl_from_teacher_to_student_on_scored_positions():
    teacher, student = np.array([[[1.0, 0.0]], [[5.0, 0.0]]]), np.array([[[0.0, 1.0]], [[0.0, 5.0]]])
    targets = torch.tensor([[0], [losses.IGNORED]])
    expected = rel_entr(softmax(teacher[0], 1), softmax(student[0], 1)).sum() / 4
    loss = losses.distillation(torch.tensor(teacher), torch.tensor(student), targets, 4)
    assert math.isclose(float(loss), expected, rel_tol=1e-5)


def test_no_gradient_flows_to_the_teacher():
    teacher = torch.randn(1, 1, 3, requires_grad=True)
    student = torch.randn(1, 1, 3, requires_grad=True)
    losses.distillation(teacher, student, torch.tensor([[0]]), 1).backward()
    assert teacher.grad is None and bool(student.grad.any())
