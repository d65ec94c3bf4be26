"""Initialisation of T from the directions that separate a client's labels, equation (9)."""

from __future__ import annotations

import pytest
import torch
from helpers import federations
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from h2tune.config import parse
from h2tune.errors import H2TuneError
from h2tune.functional.frames import label_directions, start_of
from h2tune.runs.run import run
from h2tune.training.encode import Encoded
from h2tune.training.start import start_from_labels

STILL = {"shared_learning_rate": 1e-6, "relation_learning_rate": 1e-6}


def labelled(seed: int, classes: int, size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Coordinates (n, R) whose means differ by label along orthonormal directions, the labels, the directions."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(size, size, generator=draw))[0][: classes - 1]
    labels = torch.arange(60 * classes) % classes
    means = torch.cat([torch.zeros(1, size), 6 * directions])
    return means[labels] + torch.randn(len(labels), size, generator=draw), labels, directions


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_directions_are_those_that_separate_the_labels(seed, classes):
    z, labels, directions = labelled(seed, classes)
    rows = label_directions(z, labels)
    assert rows.shape == directions.shape
    assert torch.allclose(rows @ rows.T, torch.eye(classes - 1), atol=1e-4)
    assert float((directions @ rows.T).square().sum()) > 0.7 * (classes - 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_the_start_has_its_norm_and_ignores_label_names_and_the_origin(seed, norm):
    z, labels, _ = labelled(seed, 3)
    start = start_of(label_directions(z, labels), norm)
    assert float(start.norm()) == pytest.approx(norm, rel=1e-4)
    other = start_of(label_directions(z + 5, 7 - 3 * labels), norm)
    assert torch.allclose(start, other, atol=1e-3 * norm)


def test_without_two_labels_t_starts_from_zero():
    z, labels, _ = labelled(0, 2)
    assert not start_of(label_directions(z, torch.zeros_like(labels)), 2.0).any()
    free_words = [Encoded((1, 2), (3,), None), Encoded((1, 2), (4,), None)]
    # reads nothing
    start_from_labels(None, {}, free_words, None, causal=True, batch_size=2, norm=1.0, mask="entry")


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_first_round_sends_the_start_and_the_next_one_gets_the_mean_of_all(tmp_path, blocks):
    content = federations.on_anchored_basis(tmp_path, rounds=2)
    content["experimental"] |= STILL | {"start": "labels", "start_norm": 3.0, "start_blocks": blocks}
    content["experimental"]["alone"] = True
    content["train"]["learning_rate"] = 1e-6
    finished = run(parse(content, "test", tmp_path), out=tmp_path / "run")
    assert not [e for e in finished.events if e["event"] == "client_failed"]
    middles: dict[int, dict[str, torch.Tensor]] = {0: {}, 1: {}}
    for number, started in middles.items():
        path = tmp_path / "run" / "clients" / "two" / "state" / f"round-000{number}" / "private.safetensors"
        kept = load_file(path)
        started |= {
            n.split(".", 1)[1]: t for n, t in kept.items() if n.startswith("previous.") and "middle" in n
        }
    depth = 1 + max(int(name.split(".")[-2]) for name in middles[0])
    for name, middle in middles[0].items():
        role, block = name.removesuffix(".middle").rsplit(".", 1)
        starts = role in ("attn.o", "mlp.down") and int(block) >= depth - blocks
        assert (float(middle.norm()) > 1.0) == starts, name
        if starts:  # the whole grid is this client's: r = R
            assert float(middle.norm()) == pytest.approx(3.0, rel=1e-3)
            assert torch.allclose(middle, middle.T, atol=1e-4)
    assert any(
        float(middle.norm()) > 0.1 for middle in middles[1].values()
    )  # from G: the mean of both starts


def test_a_rank_below_r_keeps_the_largest_entries_of_the_start(tmp_path):
    content = federations.on_anchored_basis(tmp_path, rounds=1)
    content["experimental"] |= STILL | {"start": "labels", "start_norm": 3.0}
    content["train"]["learning_rate"] = 1e-6
    kept = {}
    for rank in (8, 4):
        content["client"][0]["rank"] = rank
        run(parse(content, "test", tmp_path), out=tmp_path / f"rank-{rank}")
        state = tmp_path / f"rank-{rank}" / "clients" / "one" / "state" / "round-0000" / "private.safetensors"
        kept[rank] = {n: t.flatten() for n, t in load_file(state).items() if n.endswith(".middle")}
    started = [name for name, middle in kept[8].items() if float(middle.norm()) > 1]
    assert started
    for name in started:
        largest = kept[8][name].abs().sort(descending=True).values[:16]
        assert torch.allclose(kept[4][name].abs().sort(descending=True).values, largest, atol=1e-3)


def test_a_start_needs_frames(tmp_path):
    content = federations.federation(tmp_path, experimental={"start": "labels"})
    with pytest.raises(H2TuneError, match="mean the same on every model"):
        parse(content, "test", tmp_path)
