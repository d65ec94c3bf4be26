"""Linear heads on frozen features."""

from __future__ import annotations

import warnings

import torch

from h2tune.training.linear_head import LEAST, head_scores


def test_texts_far_from_the_examples_have_finite_scores_and_nothing_is_printed():
    features = torch.cat([torch.full((20, 2), -1.0), torch.full((20, 2), 1.0)])
    labels = torch.arange(2).repeat_interleave(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = head_scores(features, labels, 2, torch.tensor([[500.0, 500.0], [0.0, 0.0]]))
    assert scores[0].tolist() == [LEAST, 0.0]
    torch.testing.assert_close(scores[1].exp(), torch.full((2,), 0.5), rtol=0, atol=1e-3)


def test_a_label_without_an_example_is_the_least_likely_of_each_text():
    features = torch.tensor([[-1.0], [1.0], [-1.2], [1.1]])
    scores = head_scores(features, torch.tensor([0, 2, 0, 2]), 3, torch.tensor([[-1.0], [2.0]]))
    assert scores[:, 1].tolist() == scores[:, [0, 2]].min(1).values.tolist()
