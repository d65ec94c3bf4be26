"""Where T starts from: what tells a client's own labels apart in common coordinates, equation (9)."""

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
"""Roles whose outputs are added to what a block passes on."""


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
    """Set Δ of layers that write into the residual stream to equation (9) at Ω; nothing if there are no two labels.

    Scores start from the size of T's entries, so that a rank below R keeps the largest of them (under the mask
    `entry`); Ω at random would cut what has few directions to pieces. Only while M is zero, as it is in a
    federation's first round.

    Coordinates are those that a module's frame makes of its inputs, at the tokens where a text is read. Answers in
    free words have no labels, so that T starts from zero there.

    Args:
        model: A base model with the layers in it.
        layers: (block, role) → layer, with frames.
        rows: The client's training examples.
        tokenizer: Its tokenizer.
        causal: Whether the model is a decoder.
        batch_size: Examples of a batch.
        norm: c, the Frobenius norm of T before Ω is cut out of it.
        mask: How Ω is chosen.
        adapter_name: The adapter in the layers.
    """
    labels = [row.label for row in rows if row.label is not None]
    if len(labels) < len(rows) or len(set(labels)) < 2:
        return
    writers = {place: layer for place, layer in layers.items() if place[1] in WRITERS}
    model.eval()  # the Trainer turns it back
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
