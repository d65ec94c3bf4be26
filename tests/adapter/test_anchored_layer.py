"""The anchored layer, whose forward pass has one low-rank pair, against equation (8) term by term."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from h2tune import H2TuneConfig
from h2tune.adapter.layer import H2TuneLayer
from h2tune.functional.masks import scatter


def layer_of(rank: int, size: int, mask: str, seed: int) -> H2TuneLayer:
    draw = torch.Generator().manual_seed(seed)
    config = H2TuneConfig(
        r=rank, shared_rank=size, mask=mask, basis="anchored", basis_scale=0.7, init_seed=seed
    )
    layer = H2TuneLayer(nn.Linear(9, 11), "default", config, "some.place")
    for values in (layer.h2tune_up, layer.h2tune_delta, layer.h2tune_received, layer.h2tune_frame_down):
        values["default"].data.normal_(generator=draw)
    layer.h2tune_frame_up["default"].normal_(generator=draw)
    return layer.double()


def written_out(layer: H2TuneLayer, x: torch.Tensor) -> torch.Tensor:
    """W x + (α / r) B A x + s · B₀ T A₀ x, term by term."""
    size = layer.h2tune_frame_down["default"].shape[0]
    middle = scatter(layer.middle("default"), layer.h2tune_index["default"], size)
    private = x @ layer.h2tune_down["default"].T @ layer.h2tune_up["default"].T
    shared = x @ layer.h2tune_frame_down["default"].T @ middle.T @ layer.h2tune_frame_up["default"].T
    return layer.base_layer(x) + layer.scaling["default"] * private + 0.7 * shared


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(("entry", "block", "leading")),
    st.integers(0, 2**20),
)
def test_the_one_pair_and_its_gradients_are_those_of_equation_8(rank, more, mask, seed):
    layer = layer_of(rank, rank + more, mask, seed)
    draw = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(2, 5, 9, dtype=torch.float64, generator=draw, requires_grad=True)
    weight = torch.randn(2, 5, 11, dtype=torch.float64, generator=draw)
    trained = [values["default"] for values in (layer.h2tune_down, layer.h2tune_up, layer.h2tune_delta)] + [x]
    fast, clear = layer(x), written_out(layer, x)
    torch.testing.assert_close(fast, clear)
    of_fast = torch.autograd.grad((fast * weight).sum(), trained)
    of_clear = torch.autograd.grad((clear * weight).sum(), trained)
    for name, one, other in zip(("A", "B", "Δ", "x"), of_fast, of_clear, strict=True):
        torch.testing.assert_close(one, other, msg=lambda m, name=name: f"gradient to {name}: {m}")
        assert other.any()
