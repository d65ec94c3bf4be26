"""How base models are loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import tiny

from h2tune.models import load_model


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("family", "kind"), [("llama", "causal"), ("bert", "classifier")])
def test_weights_in_their_files_type_are_mapped_so_that_processes_share_them(tmp_path, family, kind):
    folder = tiny.save_model_folder(tmp_path / "model", family, labels=2)
    model = load_model(str(folder), kind, "float32", 0)
    file = str(folder / "model.safetensors")
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(file)]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    copied = [
        name
        for name, parameter in model.named_parameters()
        if not any(start <= parameter.data_ptr() < end for start, end in ranges)
    ]
    assert not copied
