"""A training step of h2tune beside one of plain PEFT LoRA on a GPU: tokens a second, and peak memory.

    python benchmarks/speed/gpu.py                      # Llama-3.2-1B and 8B shapes, bfloat16, batches of 8 × 512
    python benchmarks/speed/gpu.py --shapes tiny --cpu  # the same code on a CPU; its numbers say nothing

Weights are random, so nothing is downloaded. Both methods train through h2tune's trainer on one base model, in turn.
`step` takes each batch twice, as without a teacher; `joint` once, as with one. Target: `joint` at 1.05 × LoRA's time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import clients
import torch
from step import train_some
from timing import Spread, ratios, table
from transformers import AutoModelForCausalLM, LlamaConfig

from h2tune.config import load
from h2tune.models import load_tokenizer

LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8, "num_attention_heads": 32, "rope_theta": 500000.0}
SHAPES = {
    "1b": {**LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192},
    "8b": {**LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},
    "tiny": {**LLAMA, "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
}
VARIANTS = {"lora": ("local", "joint"), "joint": ("h2tune", "joint"), "step": ("h2tune", "step")}
STEPS = 4
FILE = """
name = "gpu"
[server]
rounds = 50
shared_rank = 16
strategy = "{strategy}"
[experimental]
alternation = "{alternation}"
[train]
local_steps = {steps}
batch_size = 8
[train.arguments]
bf16 = true
use_cpu = {cpu}
[data]
train = {examples}
test = 1
[[client]]
name = "one"
model = "{model}"
rank = 16
[client.task]
file = "{rows}"
prompt = "text : {{words}} answer :"
text = "{{words}}"
answer = "label"
labels = ["yes", "no"]
"""


def prepare(folder: Path, shape: str) -> LlamaConfig:
    """Write a model folder without weights and a file of rows; return the configuration."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from helpers import federations, tiny

    tiny.save_model_folder(folder / "model", "llama")
    (folder / "model" / "model.safetensors").unlink()
    config = LlamaConfig(**SHAPES[shape], tie_word_embeddings=shape == "1b", pad_token_id=0)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder / "model")
    federations.write_rows(folder / "rows.jsonl", 8 * STEPS + 8)
    return config


def client_of(folder: Path, variant: str, *, cpu: bool):
    """Return a variant's client and strategy."""
    strategy, alternation = VARIANTS[variant]
    text = FILE.format(
        strategy=strategy,
        alternation=alternation,
        steps=STEPS,
        cpu=str(cpu).lower(),
        examples=8 * STEPS,
        model=folder / "model",
        rows=folder / "rows.jsonl",
    )
    file = folder / f"{variant}.toml"
    file.write_text(text)
    return clients.client_of(load(file))


def turn(base, client, strategy, tokenizer, data, number: int) -> tuple[float, float]:
    """Attach, train one round, take off; return seconds of a local step and peak memory in MB."""
    adapted = clients.attached_to(base, client, strategy)
    on_gpu = base.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = train_some(adapted, client, tokenizer, data, number)
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else 0.0
    adapted.detach()
    return seconds, peak


def measure(shape: str, repeats: int, length: int, *, cpu: bool) -> list[list[str]]:
    """Return the rows of one shape."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, shape)
        pairs = {variant: client_of(folder, variant, cpu=cpu) for variant in VARIANTS}
        tokenizer = load_tokenizer(str(folder / "model"))
        with torch.device("cpu" if cpu else "cuda"):
            base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        data = clients.tokens(8 * STEPS, length, config.vocab_size, causal=True)
        seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        peaks = dict.fromkeys(VARIANTS, 0.0)
        for number in range(1, repeats + 2):  # the first turn warms up
            for variant, (client, strategy) in pairs.items():
                took, peaks[variant] = turn(base, client, strategy, tokenizer, data, number)
                if number > 1:
                    seconds[variant].append(took)
    least = max(peaks["lora"], 1e-9)
    return [
        [
            shape,
            variant,
            Spread.of([8 * length / s for s in seconds[variant]]).text(0),
            ratios(seconds, variant, "lora").text(),
            f"{peaks[variant]:.0f}",
            f"{peaks[variant] / least:.3f}",
        ]
        for variant in VARIANTS
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["1b", "8b"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, to see that it works")
    options = parser.parse_args()
    if not options.cpu and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --shapes tiny --cpu runs the same code without one")
    rows = [
        row
        for shape in options.shapes
        for row in measure(shape, options.repeats, options.length, cpu=options.cpu)
    ]
    print(table(["shape", "method", "tokens/s", "time, × LoRA", "peak memory, MB", "× LoRA"], rows))


if __name__ == "__main__":
    main()
