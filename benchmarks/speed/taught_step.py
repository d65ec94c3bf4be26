"""A local step with a teacher on public texts beside one of plain LoRA: seconds of processor time, real texts.

    OMP_NUM_THREADS=1 python benchmarks/speed/taught_step.py [--models all-minilm-l6-v2 …] [--repeats 5]

Own texts are film reviews, public ones of all four demo domains, at most 64 tokens each; batches of 8 own texts. All
train through h2tune's trainer, on the same own rows. Processor time, as a busy machine falsifies the other.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import clients
from timing import Spread, in_turn, ratios, table

STEPS = 9
"""Local steps of a measurement; the first is not counted."""
DOMAINS = ("movie_reviews", "amazon_reviews", "nyt_editorials", "tweets")
VARIANTS = {
    "LoRA": ("local", 0),
    "h2tune, nothing taught": ("h2tune", 0),
    "h2tune, 4 public texts": ("h2tune", 4),
    "h2tune, 8 public texts": ("h2tune", 8),
}
"""Variant → strategy, and public texts in a batch of 8 own ones."""


def build(model: str, variant: str):
    """Return what trains some local steps of a variant, and gives the mean seconds of one."""
    from h2tune.tasks.load import load_task
    from h2tune.training.readings import encode_texts

    strategy, public = VARIANTS[variant]
    federation = clients.federation_of(
        model, strategy, steps=STEPS, rank=8, shared_rank=16, changes="", examples=8 * STEPS
    )
    client, method = clients.client_of(federation)
    base, tokenizer = clients.base_of(model, client.kind)
    texts = [
        e.text for name in DOMAINS for e in load_task(name, train=100, validation=0, test=20, seed=0)[1].train
    ]
    client = replace(client, training=replace(client.training, public_batch=public or 8))
    task = replace(client.task, max_length=64)
    rows = [
        replace(row, target=(0.7, 0.3)) for row in encode_texts(tokenizer, task, texts, causal=client.causal)
    ]
    own = [
        replace(row, prompt=row.prompt[:64]) if not client.causal else row
        for row in client.encoded("train", tokenizer)
    ]
    adapted = clients.attached(base, client, method)
    return lambda number: train_some(adapted, client, tokenizer, own, rows if public else (), number)


def train_some(adapted, client, tokenizer, own, public, number: int) -> float:
    """Return the mean seconds of a local step: from the end of the first to the end of the last."""
    from h2tune.training.local import LocalRound

    ends: list[float] = []
    terms = adapted.terms()
    if public:
        terms = replace(terms, teacher_weight=1.0, public_items=client.training.public_batch)
    LocalRound(
        adapted.model,
        own,
        tokenizer,
        client.training,
        causal=client.causal,
        phases=adapted.phases(),
        terms=terms,
        alternation="joint",
        round_number=number,
        seed=0,
        progress=lambda step, phase, loss: ends.append(time.process_time()),
        public=public,
    ).train()
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(clients.MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        trained = {variant: build(model, variant) for variant in VARIANTS}
        for train in trained.values():
            train(1)
        values = in_turn({v: lambda t=t: t(2) for v, t in trained.items()}, options.repeats)
        rows += [[model, v, Spread.of(values[v]).text(), ratios(values, v, "LoRA").text()] for v in VARIANTS]
        print(json.dumps({"model": model, "seconds": values}), flush=True)
    print(table(["model", "a step of", "s", "× LoRA"], rows))


if __name__ == "__main__":
    main()
