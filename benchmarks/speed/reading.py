"""Reading public texts as the product does, beside bare forward passes of the model over the same tokens.

    OMP_NUM_THREADS=1 python benchmarks/speed/reading.py [--models all-minilm-l6-v2 …] [--texts 480] [--repeats 5]

The product's way is `ModelReader` with an empty cache: the checksum of the weights, tokens, padding, forward passes,
pooling, and writing to the cache. "last states" is what an exchange needs whose coordinates are made by a public
encoder; "all layers" also pools the inputs and outputs of every adapted module, for frames. The bare passes get
tokens in tensors, of the same length and in the same batches. Processor time, as a busy machine falsifies the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import clients
import torch
from timing import Spread, in_turn, ratios, table

MODELS = ("all-minilm-l6-v2", "smollm2-135m-instruct")
WAYS = ("bare forward", "last states", "all layers")
SIZE = 16
"""R, the number of coordinates that frames are computed of."""


@dataclass
class Timer:
    """Seconds of work by name; those of wall time are kept beside those of the processor."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[], Any]) -> float:
        """Do the work, and return its seconds of processor time."""
        gc.collect()
        wall, processor = time.perf_counter(), time.process_time()
        work()
        seconds = time.process_time() - processor
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.processor.setdefault(name, []).append(seconds)
        return seconds


class Reading:
    """One model and the public texts that it reads.

    Args:
        model: Name of a demo model.
        count: Number of texts.
        batch_size: Texts of a batch.
    """

    def __init__(self, model: str, count: int, batch_size: int) -> None:
        from h2tune.federation.h2tune.basis import anchor_texts

        federation = clients.federation_of(
            model, "h2tune", steps=1, rank=8, shared_rank=SIZE, changes="", examples=32
        )
        client, _ = clients.client_of(federation)
        self.client = replace(client, evaluate_batch_size=batch_size)
        self.base, self.tokenizer = clients.base_of(model, client.kind)
        self.texts = anchor_texts(federation.basis.texts, count, 0)
        self.batches = self._batches()
        self.timer = Timer()

    def _batches(self) -> list[dict[str, torch.Tensor]]:
        """Return the texts' tokens in padded batches of like length."""
        from h2tune.training.encode import by_length, collator
        from h2tune.training.readings import encode_texts

        causal = self.client.causal
        rows = encode_texts(self.tokenizer, self.client.task, self.texts, causal=causal)
        if causal:
            rows = [replace(row, answer=(0,), choices=()) for row in rows]
        collate = collator(self.base, self.tokenizer, causal=causal)
        batches = [
            collate([rows[i] for i in places]) for places in by_length(rows, self.client.evaluate_batch_size)
        ]
        return [{name: part for name, part in batch.items() if name != "labels"} for batch in batches]

    @property
    def padding(self) -> float:
        """The share of the batches that is padding."""
        masks = [batch["attention_mask"] for batch in self.batches]
        return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @torch.inference_mode()
    def bare(self) -> None:
        """Run the batches through the model."""
        for batch in self.batches:
            self.base.base_model(**batch)

    def read(self, way: str) -> float:
        """Return the seconds of reading in a way; those of computing frames afterwards are kept in the timer."""
        from h2tune.federation.h2tune.model_reader import ROOM, ModelReader
        from h2tune.federation.h2tune.reading_cache import ReadingCache

        with tempfile.TemporaryDirectory() as folder:
            cache, room = ReadingCache(Path(folder)), ROOM if way == "all layers" else 0
            reader = ModelReader(lambda _: (self.base, self.tokenizer), self.texts, room, cache)
            seconds = self.timer.time(way, lambda: reader.finals(self.client))
            if room:
                z = torch.randn(len(self.texts), SIZE, generator=torch.Generator().manual_seed(0))
                self.timer.time("frames", lambda: reader.frames(self.client, z))
        return seconds

    def measure(self, repeats: int) -> dict[str, list[float]]:
        """Return the seconds of processor time of each way, in turn."""
        bare, last, layers = WAYS
        return in_turn(
            {
                bare: lambda: self.timer.time(bare, self.bare),
                last: lambda: self.read(last),
                layers: lambda: self.read(layers),
            },
            repeats,
        )


def rows_of(model: str, reading: Reading, values: dict[str, list[float]]) -> list[list[str]]:
    """Return the rows of a model in the table."""
    timer = reading.timer
    rows = [
        [
            model,
            way,
            Spread.of(values[way]).text(2),
            Spread.of(timer.wall[way]).text(2),
            ratios(values, way, WAYS[0]).text(),
        ]
        for way in WAYS
    ]
    frames = [Spread.of(timer.processor["frames"]).text(2), Spread.of(timer.wall["frames"]).text(2)]
    return [*rows, [model, "frames, after all layers", *frames, ""]]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--texts", type=int, default=480)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        reading = Reading(model, options.texts, options.batch_size)
        reading.bare()
        values = reading.measure(options.repeats)
        rows += rows_of(model, reading, values)
        print(
            json.dumps({"model": model, "padding": round(reading.padding, 4), "seconds": values}), flush=True
        )
    print(table(["model", "way", "processor, s", "wall, s", "× bare"], rows))


if __name__ == "__main__":
    main()
