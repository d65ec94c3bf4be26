"""Initialisation of T from the directions that separate a client's labels, equation (9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.adapter.layer import H2TuneLayer
from h2tune.functional.frames import label_directions, start_of
from h2tune.functional.masks import Mask, gather
from h2tune.training.encode import Encoded
from h2tune.training.readings import read_rows

WRITERS = ("attn.o", "mlp.down")
"""Roles whose outputs are added to the residual stream."""


@torch.no_grad()
def start_from_labels(
    model: PreTrainedModel,
    layers: Mapping[tuple[int, str], H2TuneLayer],
    rows: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    *,
    causal: bool,
    batch_size: int,
    norm: float,
    mask: Mask,
    adapter_name: str = "default",
) -> None:
    """Set Δ at Ω to equation (9), in layers that write into the residual stream; needs two labels or more.

    Mask scores are set to the magnitudes of T's entries, so that a rank below R keeps the largest of them (under the
    mask `entry`); a random Ω would destroy the low rank of T. Valid only while M is zero, as in a federation's first
    round.

    The coordinates are a module's pooled inputs, mapped by its frame. Free answers have no labels, so T stays zero.

    Args:
        model: A base model with the layers in it.
        layers: (block, role) → layer, with frames.
        rows: The client's training examples.
        tokenizer: Its tokenizer.
        causal: Whether the model is a decoder.
        batch_size: Examples of a batch.
        norm: c, the Frobenius norm of T before it is masked by Ω.
        mask: How Ω is chosen.
        adapter_name: The adapter in the layers.
    """
    labels = [row.label for row in rows if row.label is not None]
    if len(labels) < len(rows) or len(set(labels)) < 2:
        return
    writers = {place: layer for place, layer in layers.items() if place[1] in WRITERS}
    model.eval()  # the Trainer sets it back to training mode
    _, inputs, _ = read_rows(model, tokenizer, rows, causal=causal, modules=writers, batch_size=batch_size)
    for place, layer in writers.items():
        z = inputs[place].clone() @ layer.h2tune_frame_down[adapter_name].float().cpu().T
        start = start_of(label_directions(z, torch.tensor(labels)), norm)
        largest = start.abs().max()
        if largest > 0:
            layer.h2tune_scores[adapter_name].copy_(start.abs() / largest)
            layer.choose_mask(adapter_name, mask)
        index = layer.h2tune_index[adapter_name].cpu()
        layer.h2tune_delta[adapter_name].copy_(gather(start, index))
