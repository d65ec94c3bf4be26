"""How many rows of a batch are public texts."""

from __future__ import annotations

import pytest

from h2tune.training.local import LocalTraining


def numbers(**changes) -> LocalTraining:
    given = {"alternation": "joint", "rounds": 1, "local_steps": 120, "batch_size": 8, "accumulation": 1,
             "learning_rates": {}, "weight_decay": 0.0, "scheduler": "linear", "warmup_steps": 0, "max_grad_norm": 1.0,
             "arguments": {}}  # fmt: skip
    return LocalTraining(**given | changes)


@pytest.mark.parametrize("labels", [0, 24, 128])
def test_a_teacher_that_weighs_as_much_as_the_labels_has_as_many_rows(labels):
    assert numbers().with_teacher(labels) == numbers()


@pytest.mark.parametrize(("labels", "public"), [(256, 4), (1000, 1), (100_000, 1)])
def test_of_many_labels_more_rows_are_trained_and_of_public_texts_fewer(labels, public):
    found = numbers().with_teacher(labels)
    assert found.public_batch == public and found.teacher_weight(labels) == 128 / labels
    rows = found.local_steps * (found.batch_size + public)
    assert 120 * 16 - (8 + public) < rows <= 120 * 16


def test_micro_batches_have_equally_many_public_texts():
    found = numbers(accumulation=4).with_teacher(300)
    assert found.public_batch == 4 and found.public_batch % found.accumulation == 0
