"""Steps of normalised gradients, beside another optimiser."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from torch.optim import SGD, AdamW

from h2tune.config import parse
from h2tune.runs.run import run
from h2tune.training.normalised import MOMENTUM, normalising


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_one_group_is_normalised_and_the_other_steps_as_ever(kind):
    draw = torch.Generator().manual_seed(0)
    middle, private = (torch.nn.Parameter(torch.randn(4, 4, generator=draw)) for _ in range(2))
    alone = torch.nn.Parameter(private.detach().clone())
    both = normalising(kind)(
        [{"params": [middle], "lr": 0.1, "normalised": True}, {"params": [private], "lr": 0.3}], lr=1.0
    )
    plain = kind([{"params": [alone], "lr": 0.3}], lr=1.0)
    momentum = torch.zeros(4, 4)
    for _ in range(3):
        before = middle.detach().clone()
        gradient = torch.outer(*torch.randn(2, 4, generator=draw))
        middle.grad = gradient.clone() * 1e-3  # its size does not matter
        private.grad = alone.grad = torch.randn(4, 4, generator=draw)
        momentum = MOMENTUM * momentum + 1e-3 * gradient
        both.step()
        plain.step()
        step = middle.detach() - before
        assert torch.allclose(step, -0.1 * 4 * momentum / momentum.norm(), atol=1e-6)
        assert torch.equal(private, alone)


def test_no_gradient_is_no_step():
    middle = torch.nn.Parameter(torch.ones(2, 2))
    optimiser = normalising(AdamW)([{"params": [middle], "normalised": True}], lr=0.1)
    optimiser.step()
    middle.grad = torch.zeros(2, 2)
    optimiser.step()
    assert torch.equal(middle, torch.ones(2, 2))


def test_a_federation_trains_so_and_its_steps_of_t_differ(tmp_path):
    content = federations.on_anchored_basis(tmp_path, rounds=2)
    runs = {}
    for name in ("same", "normalised"):
        content["experimental"] |= {"shared_optimizer": name}
        runs[name] = run(parse(content, "test", tmp_path), out=tmp_path / name, strict=True)
    changes = {
        name: [e["change"] for e in finished.events if e["event"] == "aggregated"]
        for name, finished in runs.items()
    }
    assert all(change > 0 for series in changes.values() for change in series)
    assert changes["same"] != changes["normalised"]
