"""What the last layer of a classifier's head reads of a client's texts, kept on disk for later runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.h2tune.reading_cache import SMALL, ReadingCache
from h2tune.federation.messages import digest
from h2tune.files import sha256
from h2tune.heads import last_layer
from h2tune.training.encode import Encoded
from h2tune.training.readings import head_inputs

FORMAT = 2
"""Version of the cached content; raise it when the same model and texts give other inputs."""


def last_layer_inputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    cache: ReadingCache,
    *,
    batch_size: int,
) -> Tensor:
    """Return the inputs (n, d) of a classifier's last layer on texts that are tokenised.

    Args:
        model: A frozen classifier.
        tokenizer: Its tokenizer.
        rows: The texts.
        cache: Where they are kept, except of models that read quickly.
        batch_size: Texts of a batch.
    """

    def read() -> dict[str, Tensor]:
        return {"inputs": head_inputs(model, tokenizer, rows, last_layer(model)[1], batch_size=batch_size)}

    if model.num_parameters() < SMALL:
        return read()["inputs"]
    return cache.get_or_compute(cached_name(model, rows, batch_size), read)["inputs"]


def cached_name(model: PreTrainedModel, rows: Sequence[Encoded], batch_size: int) -> str:
    """Return the name in the cache of what a classifier's last layer reads of texts."""
    name, _ = last_layer(model)
    weights = {key: t for key, t in model.state_dict().items() if not key.startswith(f"{name}.")}
    content = {
        "format": [FORMAT, torch.__version__, transformers.__version__],
        "weights": digest(weights),
        # label names change nothing, and differ between clients
        "config": {
            k: v for k, v in model.config.to_dict().items() if k not in ("id2label", "label2id", "num_labels")
        },
        "device": model.device.type,
        "batch_size": batch_size,
        "tokens": [row.prompt for row in rows],
    }
    return f"{sha256(json.dumps(content, sort_keys=True, default=str).encode())}-head"
