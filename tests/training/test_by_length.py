"""A batch in two parts of like length gives what the whole batch gives."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from hypothesis import given
from hypothesis import strategies as st

from h2tune.training.by_length import WORTHWHILE, best_cut, logits_by_length
from h2tune.training.encode import Encoded, causal_batch, kept_logits, text_batch


def rows(lengths, *, causal):
    """Own rows, and public ones with a teacher, in turn."""
    for i, length in enumerate(lengths):
        prompt = tuple(5 + (7 * i + j) % 40 for j in range(length))
        if i % 2:
            yield Encoded(prompt, (), None, (0.25, 0.75), ((5,), (6,)) if causal else ())
        else:
            yield Encoded(prompt, (9, 11)[: 1 + i % 4 // 2] if causal else (), i % 4 // 2)


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_logits_and_gradients_are_those_of_the_whole_batch(family):
    causal = family != "bert"
    model = (tiny.causal(family) if causal else tiny.classifier(family)).eval()
    items = list(rows((3, 14, 4, 2, 15, 3, 16, 5), causal=causal))
    batch = causal_batch(items, 0, positions=family != "bert") if causal else text_batch(items, 0)
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].numel()))
    gradients = []
    for forward in (kept_logits, logits_by_length):
        model.zero_grad()
        logits = forward(model, batch, causal=causal)
        logits.float().square().mean().backward()
        gradients.append((logits.detach(), model.get_input_embeddings().weight.grad.clone()))
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert sum(seen[1:]) < 0.8 * seen[0] and len(seen) == 3


def test_rows_of_one_length_stay_together():
    model, seen = tiny.classifier("bert").eval(), []
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    batch = text_batch(list(rows((9, 9, 9, 10), causal=False)), 0)
    logits_by_length(model, batch, causal=False)
    assert seen == [(4, 10)]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=12))
def test_no_other_cut_has_fewer_tokens(lengths):
    lengths.sort()
    whole, cut = len(lengths) * lengths[-1], best_cut(lengths)
    tokens = [c * lengths[c - 1] + (len(lengths) - c) * lengths[-1] for c in range(1, len(lengths))]
    if cut:
        assert tokens[cut - 1] == min(tokens) < WORTHWHILE * whole
    else:
        assert min(tokens, default=whole) >= WORTHWHILE * whole
