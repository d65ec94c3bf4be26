"""llama.cpp, as `make gguf` installs it: its converters, and answers of its server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2] / "build" / "gguf"
ASK = """
import json, sys, xllamacpp
model, adapter = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = model, 512, 1, False
params.cpuparams.n_threads = 1
if adapter:
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
server = xllamacpp.Server(params)
for messages in json.load(sys.stdin):
    asked = {"messages": messages, "max_tokens": 12, "temperature": 0}
    print(json.dumps(server.handle_chat_completions(asked)["choices"][0]["message"]["content"]))
"""


def needed() -> None:
    """Skip the test where llama.cpp is not installed."""
    if not (HOME / "llama.cpp" / "convert_hf_to_gguf.py").is_file() or not (HOME / "lib").is_dir():
        pytest.skip(f"NOT TESTED: no llama.cpp in {HOME}; run make gguf")


def convert(script: str, *arguments: str) -> None:
    """Run one of llama.cpp's converters."""
    _python([str(HOME / "llama.cpp" / script), *arguments])


def answers(
    model: Path, conversations: Sequence[list[dict[str, str]]], adapter: Path | None = None
) -> list[str]:
    """Return llama.cpp's greedy answers to conversations, through the chat template in the GGUF file."""
    out = _python(["-c", ASK, str(model), str(adapter or "")], json.dumps(conversations))
    return [json.loads(line) for line in out.splitlines()]


def _python(arguments: Sequence[str], given: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": str(HOME / "lib"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        input=given,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
