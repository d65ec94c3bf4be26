"""A training step of h2tune beside one of plain PEFT LoRA: time, and peak memory of a process of its own.

    python benchmarks/speed/step.py [--models all-minilm-l6-v2 …] [--variants step "step, free basis" …] [--repeats 5]

Both train through h2tune's trainer, which computes only the needed logits: a plain Trainer would compute all of them
for LoRA, and that would flatter h2tune. One local step is one batch of 8 × 64 tokens; `step` takes it twice.
"""

from __future__ import annotations

import argparse
import json
import time

import clients
from timing import Spread, in_process, in_turn, memory, ratios, table

STEPS = 4
INTERLEAVE = '[experimental]\nalternation = "interleave"'
FREE = '[basis]\nkind = "free"'
VARIANTS = {
    "lora": ("local", ""),
    "interleave": ("h2tune", INTERLEAVE),
    "step": ("h2tune", ""),
    "interleave, free basis": ("h2tune", f"{INTERLEAVE}\n{FREE}"),
    "step, free basis": ("h2tune", FREE),
}


def build(model: str, variant: str, rank: int, shared_rank: int):
    """Return what trains a number of local steps of a variant, and gives the seconds of each one."""
    strategy, changes = VARIANTS[variant]
    federation = clients.federation_of(
        model, strategy, steps=STEPS, rank=rank, shared_rank=shared_rank, changes=changes, examples=8 * STEPS
    )
    client, method = clients.client_of(federation)
    base, tokenizer = clients.base_of(model, client.kind)
    vocabulary = base.get_input_embeddings().num_embeddings
    data = clients.tokens(8 * STEPS, 64, vocabulary, causal=client.causal)
    adapted = clients.attached(base, client, method)
    del base
    return lambda number: train_some(adapted, client, tokenizer, data, number)


def train_some(adapted, client, tokenizer, data, number: int) -> float:
    """Return the seconds of a local step: from one step's end to the next, without the fixed cost of a round."""
    from h2tune.training.local import LocalRound

    ends: list[float] = []
    LocalRound(
        adapted.model,
        data,
        tokenizer,
        client.training,
        causal=client.causal,
        phases=adapted.phases(),
        terms=adapted.terms(),
        alternation=adapted.alternation,
        round_number=number,
        seed=0,
        progress=lambda step, phase, loss: ends.append(time.perf_counter()),
    ).train()
    ends = ends[1::2] if adapted.alternation == "step" else ends
    if adapted.alternation == "interleave":
        ends = ends[:-1]  # as many steps of either phase
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def peak(model: str, variant: str, rank: int, shared_rank: int) -> float:
    """Return the peak memory in MB of this process after a round of this variant."""
    build(model, variant, rank, shared_rank)(1)
    return memory()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(clients.MODELS))
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--shared-rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:3])
    options = parser.parse_args()
    rows, variants = [], ["lora", *(v for v in options.variants if v != "lora")]
    for model in options.models:
        trained = {v: build(model, v, options.rank, options.shared_rank) for v in variants}
        for train in trained.values():
            train(1)
        values = in_turn({v: lambda t=t: t(2) for v, t in trained.items()}, options.repeats)
        del trained
        peaks = {v: in_process(peak, model, v, options.rank, options.shared_rank) for v in variants}
        rows += [
            [
                model,
                v,
                Spread.of(values[v]).text(),
                ratios(values, v, "lora").text(),
                f"{peaks[v]:.0f}",
                f"{peaks[v] / peaks['lora']:.3f}",
            ]
            for v in variants
        ]
        print(json.dumps({"model": model, "seconds": values, "memory": peaks}), flush=True)
    head = ["model", "method", "s per local step", "× LoRA", "peak memory, MB", "× LoRA"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
