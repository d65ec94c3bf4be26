"""The same run on a GPU and on a CPU: `make test-gpu`.

Without a CUDA device all of it is skipped. `H2TUNE_GPU_TESTS=cpu` runs the same code on a CPU, to see that it works.
"""

from __future__ import annotations

import math
import os
import subprocess

import pytest
import torch
from helpers import federations, tiny

import h2tune
from h2tune.events import read_events

FORCED = os.environ.get("H2TUNE_GPU_TESTS") == "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # compilers and drivers warn of what is not ours
    pytest.mark.skipif(
        not (FORCED or torch.cuda.is_available()), reason="NO CUDA DEVICE: nothing of a GPU was tested"
    ),
]
FAMILIES = [family for family in tiny.FAMILIES if family != "qwen2"]  # its tokenizer cannot be made in code


def losses(folder, family, out, *, cpu=False, dtype="float32", jobs=None, **arguments):
    """Return the losses of two clients' steps in two rounds, of a run in the folder's `out`."""
    content = federations.federation(folder, (("one", family, 4), ("two", family, 8)))
    content["train"]["arguments"] = {**arguments, "use_cpu": cpu or FORCED}
    for client in content["client"]:
        client["dtype"] = dtype
    file = federations.write(folder, content)
    # a compiler's stand-ins for tensors fail this suite's checks of shapes, which another process does not have
    if arguments.get("torch_compile"):
        subprocess.run(federations.command("run", str(file), "--out", str(folder / out)), check=True)
    else:
        h2tune.run(file, out=folder / out, jobs=jobs)
    events = read_events(folder / out / "events.jsonl")
    trained = [event for event in events if event["event"] == "client_trained"]
    assert len(trained) == 4, "a client failed"
    return [step["loss"] for event in trained for step in event["losses"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_as_on_a_cpu(tmp_path, family):
    found, expected = losses(tmp_path, family, "gpu"), losses(tmp_path, family, "cpu", cpu=True)
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_near_float32_on_a_cpu(tmp_path, family):
    found, expected = losses(tmp_path, family, "gpu", bf16=True), losses(tmp_path, family, "cpu", cpu=True)
    assert found[0] == pytest.approx(expected[0], rel=5e-2, abs=5e-2)
    assert all(math.isfinite(loss) for loss in found) and len(found) == len(expected)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_recomputed_activations_change_nothing(tmp_path, family):
    found, expected = (
        losses(tmp_path, family, "a", activation_checkpointing=True),
        losses(tmp_path, family, "b"),
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_compiled_model_begins_with_the_same_loss(tmp_path, family):
    found, expected = losses(tmp_path, family, "a", torch_compile=True), losses(tmp_path, family, "b")
    assert found[0] == pytest.approx(expected[0], rel=1e-2)


def test_four_bit_weights_train(tmp_path):
    pytest.importorskip("bitsandbytes")
    assert all(math.isfinite(loss) for loss in losses(tmp_path, "llama", "a", dtype="nf4"))


def test_a_gpu_run_repeats_to_the_bit(tmp_path):
    assert losses(tmp_path, "llama", "a") == losses(tmp_path, "llama", "b")


def test_clients_side_by_side_are_as_one_after_another(tmp_path):
    """Where there are several GPUs, each process has one of its own."""
    found, expected = losses(tmp_path, "llama", "a", jobs=2), losses(tmp_path, "llama", "b")
    assert found == pytest.approx(expected, rel=1e-5)
