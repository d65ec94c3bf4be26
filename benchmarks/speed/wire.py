"""Bytes on the wire for the paper's trio, by the sizes of its models: h2tune beside what else could travel.

    python benchmarks/speed/wire.py

Gemma 2B, Llama 3.2 3B and SmolLM 1.7B at ranks 16, 64 and 128 (R = 128, D = 28). h2tune is what `h2tune inspect` says;
the others are arithmetic: averaging LoRA sends A and B in float32; FLoRA's server sends the stack of all ranks back (as
if the three had one model); the authors' release sends a dense tensor of D × roles × R² in float32 both ways.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from timing import table
from transformers import AutoConfig

from h2tune.config import load
from h2tune.federation.messages import payload_bytes
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all

PAPER = Path(__file__).parents[2] / "examples" / "paper" / "d1-heterogeneous.toml"
SIZES = {
    "gemma": ("gemma", {"hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8,
        "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 16384, "vocab_size": 256000}),
    "llama": ("llama", {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192, "vocab_size": 128256}),
    "smollm": ("llama", {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 49152}),
}  # fmt: skip


def main() -> None:
    """Print a table for each type on the wire."""
    for wire_dtype in ("float32", "float16", "int8"):
        print(f'\n`server.wire_dtype = "{wire_dtype}"`, MB a round after the first\n')
        less = ["up: × less than LoRA", "down: × less than LoRA", "down: × less than FLoRA"]
        sent = ["h2tune up", "h2tune down", "LoRA up and down", "FLoRA down", "release up and down"]
        print(table(["client", "rank", *sent, *less], rows_of(wire_dtype)))


def rows_of(wire_dtype: str) -> list[list[str]]:
    """Return a row for each client."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [f'server.wire_dtype="{wire_dtype}"']
        for name, (family, sizes) in SIZES.items():
            model = Path(folder) / name
            AutoConfig.for_model(family, **sizes, max_position_embeddings=2048).save_pretrained(model)
            changes.append(f"client.{name}.model={model}")
        federation = load(PAPER, changes)
        _, enrolments, size, slots = enrol_all(federation)
        strategy = build_strategy(federation, enrolments, size, slots)
    dense = slots * len(strategy.roles) * size * size * 4
    ranks = sum(e.rank for e in enrolments)
    rows = []
    for e in enrolments:
        width = sum(d_in + d_out for d_in, d_out in e.modules.values())
        up, down = (payload_bytes(s(e.name, 1)) for s in (strategy.upload_spec, strategy.download_spec))
        lora, stack = 4 * e.rank * width, 4 * ranks * width
        sizes = [f"{value / 1e6:.2f}" for value in (up, down, lora, stack, dense)]
        rows.append(
            [e.name, str(e.rank), *sizes, f"{lora / up:.0f}", f"{lora / down:.1f}", f"{stack / down:.0f}"]
        )
    return rows


if __name__ == "__main__":
    main()
