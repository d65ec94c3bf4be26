"""int8 on the wire: one scale per matrix, and error feedback."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from hypothesis import given
from hypothesis import strategies as st

from h2tune import run
from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.federation.h2tune import wire
from h2tune.federation.messages import spec_of

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw) * 10 ** (6 * torch.rand((shape[0], 1, 1), generator=draw) - 3)


@given(shapes, seeds)
def test_rounding_is_off_by_half_a_step_of_each_matrix_at_most(shape, seed):
    values = random(shape, seed)
    sent = wire.write_matrices("delta", "attn.q", values, "int8")
    assert spec_of(sent) == wire.matrices_spec("delta", "attn.q", shape, "int8")
    steps = sent["delta_scale.attn.q"][:, None, None]
    assert torch.allclose(steps.flatten(), values.abs().amax(dim=(1, 2)) / 127)
    assert bool(((wire.read_matrices("delta", "attn.q", sent) - values).abs() <= steps * 0.5001).all())


@given(shapes, seeds, st.sampled_from(["float32", "float16", "bfloat16"]))
def test_floats_have_no_scale(shape, seed, wire_dtype):
    values = random(shape, seed)
    sent = wire.write_matrices("shared", "mlp.up", values, wire_dtype)
    assert spec_of(sent) == wire.matrices_spec("shared", "mlp.up", shape, wire_dtype)
    assert list(sent) == ["shared.mlp.up"]
    if wire_dtype == "float32":
        assert torch.equal(wire.read_matrices("shared", "mlp.up", sent), values)


def test_zeros_stay_zeros():
    sent = wire.write_matrices("delta", "attn.q", torch.zeros(2, 3, 3), "int8")
    assert not bool(wire.read_matrices("delta", "attn.q", sent).any())


@given(shapes, seeds)
def test_error_feedback_leaves_the_error_of_the_last_rounding_only(shape, seed):
    remainder, learned, arrived = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    for number in range(6):
        increment = random(shape, seed + number)
        sent = wire.read_matrices(
            "delta", "r", wire.write_matrices("delta", "r", increment + remainder, "int8")
        )
        remainder = increment + remainder - sent
        learned, arrived = learned + increment, arrived + sent
    size = learned.abs().amax() + remainder.abs().amax() + 1
    assert torch.allclose(arrived + remainder, learned, atol=float(1e-5 * size * 10))


def test_a_run_with_int8_sends_less_and_ends_close_to_float32(tmp_path):
    content = federations.federation(
        tmp_path,
        (("one", "llama", 2), ("two", "bert", 4)),
        server={"rounds": 3, "min_clients": 2},
        train={"local_steps": 4},
        experimental={"shared_learning_rate": 3e-2},
    )
    runs = {}
    for wire_dtype in ("float32", "int8"):
        federation = parse({**content, "server": {**content["server"], "wire_dtype": wire_dtype}}, "test")
        runs[wire_dtype] = run(federation, out=tmp_path / wire_dtype, strict=True)
    sizes = {}
    for wire_dtype, done in runs.items():
        trained = [e for e in done.events if e["event"] == "client_trained" and e["client"] == "two"]
        sizes[wire_dtype] = [e["bytes_down"] for e in trained]
        assert all(e["received_matches"] for e in trained)
    assert sizes["int8"][1] < 0.5 * sizes["float32"][1]
    shared = {
        w: torch.tensor([e["norm"] for e in r.events if e["event"] == "aggregated"]) for w, r in runs.items()
    }
    assert torch.allclose(shared["int8"], shared["float32"], rtol=0.02)
    assert not torch.equal(shared["int8"], shared["float32"])


def test_noise_from_clients_and_int8_are_refused_together(tmp_path):
    content = federations.federation(
        tmp_path, (("one", "llama", 4), ("two", "llama", 4), ("three", "llama", 4))
    )
    content["server"] |= {"min_clients": 3, "wire_dtype": "int8"}
    content["privacy"] = {"noise": "member"}
    with pytest.raises(H2TuneError, match=r"does not go with server\.wire_dtype"):
        parse(content, "test")
