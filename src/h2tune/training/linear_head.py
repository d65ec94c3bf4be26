"""Linear heads on frozen features, fitted to a client's labels before anything is trained."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import Tensor

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Candidate ridge penalties, for features of unit variance."""

LEAST = -30.0
"""Least log-probability."""


def standardise(features: Tensor, reference: Tensor) -> Tensor:
    """Return features (n, d) standardised by the mean and standard deviation of a reference (m, d)."""
    mean, deviation = reference.mean(0), reference.std(0).clamp(min=1e-6)
    return (features - mean) / deviation


def head_scores(features: Tensor, labels: Tensor, classes: int, others: Tensor) -> Tensor:
    """Return log-probabilities (m, classes) of other texts, by logistic regression on a client's features.

    A label without an example gets the lowest log-probability of each text.

    Args:
        features: Features of the client's texts (n, d), of about unit variance.
        labels: Their labels (n,), of two classes or more.
        classes: Number of labels.
        others: Features of the other texts (m, d).
    """
    model = LogisticRegression(C=1.0, max_iter=2000).fit(features.double().numpy(), labels.numpy())
    with np.errstate(divide="ignore"):  # a probability of zero is cut off like all very small ones
        known = torch.from_numpy(model.predict_log_proba(others.double().numpy())).clamp(min=LEAST)
    scores = known.min(1, keepdim=True).values.expand(-1, classes).clone()
    scores[:, torch.from_numpy(np.asarray(model.classes_))] = known
    return scores.float()


def linear_rule(features: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (C, d) and bias (C,) of the ridge regression of scores (n, C) on features (n, d)."""
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    model = RidgeCV(alphas=PENALTIES).fit(
        ((features - mean) / deviation).double().numpy(), scores.double().numpy()
    )
    weight = torch.from_numpy(np.asarray(model.coef_)).float() / deviation
    return weight, torch.from_numpy(np.asarray(model.intercept_)).float() - weight @ mean


def extrapolate(features: Tensor, scores: Tensor, others: Tensor) -> Tensor:
    """Return scores (m, C) of other texts, by ridge regression of known scores (n, C) on features (n, d)."""
    model = RidgeCV(alphas=PENALTIES).fit(features.double().numpy(), scores.double().numpy())
    return torch.from_numpy(np.asarray(model.predict(others.double().numpy()))).float()
