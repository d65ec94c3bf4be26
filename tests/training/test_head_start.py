"""A classification head that starts at a teacher or at the labels, for each family's kind of head."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from transformers import AutoModelForSequenceClassification

from h2tune.federation import head_reading
from h2tune.federation.h2tune.reading_cache import ReadingCache
from h2tune.heads import last_layer, set_head
from h2tune.training.encode import Encoded, pad_token, text_batch
from h2tune.training.head_start import start_head
from h2tune.training.readings import HeadReading, head_inputs, read_rows


def encoder(family):
    model = tiny.classifier(family)
    set_head(model, ("no", "yes", "perhaps"), seed=0)
    return model.eval(), tiny.tokenizer()


def rows_of(count):
    draw = torch.Generator().manual_seed(0)
    return [
        Encoded(tuple(torch.randint(5, 60, (6,), generator=draw).tolist()), (), i % 3) for i in range(count)
    ]


@torch.no_grad()
def logits(model, tokenizer, rows):
    batch = text_batch(rows, pad_token(tokenizer))
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_a_linear_teacher_comes_back(family):
    model, tokenizer = encoder(family)
    rows = rows_of(120)
    features = head_inputs(model, tokenizer, rows, last_layer(model)[1])
    rule = torch.randn(features.shape[1], 3, generator=torch.Generator().manual_seed(1))
    wanted = ((features - features.mean(0)) / features.std(0).clamp(min=1e-6)) @ rule / 5
    taught = [
        Encoded(r.prompt, (), None, tuple(q)) for r, q in zip(rows, wanted.softmax(1).tolist(), strict=True)
    ]
    start_head(last_layer(model)[1], features, taught)
    given = logits(model, tokenizer, rows)
    errors = (given.softmax(1) - wanted.softmax(1)).abs()
    assert float(errors.mean()) < 0.05


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_labels_come_back_more_often_than_from_a_fresh_head(family):
    model, tokenizer = encoder(family)
    rows = rows_of(9)
    layer = last_layer(model)[1]
    start_head(layer, head_inputs(model, tokenizer, rows, layer, batch_size=4), rows)
    right = logits(model, tokenizer, rows).argmax(1) == torch.tensor([row.label for row in rows])
    assert float(right.float().mean()) >= 2 / 3


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_a_reading_of_final_states_has_the_same_inputs_of_the_head(family):
    model, tokenizer = encoder(family)
    rows, layer = [*rows_of(7), Encoded((5, 6, 7), (), 0)], last_layer(model)[1]
    plain, _, _ = read_rows(model, tokenizer, rows, causal=False, modules={}, batch_size=3)
    head = HeadReading(layer)
    finals, _, _ = read_rows(model, tokenizer, rows, causal=False, modules={}, batch_size=3, head=head)
    assert torch.equal(finals, plain) and head.inputs is not None
    assert torch.equal(head.inputs, head_inputs(model, tokenizer, rows, layer, batch_size=3))


def test_a_decoder_s_head_starts_at_the_token_that_it_answers_from():
    """Its last layer scores every token, and the model takes the scores of a text's last one."""
    config = tiny.causal("llama").config
    config.num_labels, config.pad_token_id = 2, tiny.tokenizer().pad_token_id
    model = AutoModelForSequenceClassification.from_config(config).eval()
    rows = [Encoded(tuple(range(5, 5 + 2 * n)), (), n % 2) for n in (4, 1, 3, 2)]
    layer = last_layer(model)[1]
    for size in (3, 4, 1):
        features = head_inputs(model, tiny.tokenizer(), rows, layer, batch_size=size)
        assert torch.allclose(
            features @ layer.weight.detach().T, logits(model, tiny.tokenizer(), rows), atol=1e-6
        )
        head = HeadReading(layer)
        read_rows(model, tiny.tokenizer(), rows, causal=False, modules={}, batch_size=size, head=head)
        assert torch.equal(head.inputs, features)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that small models are not left out of, and the number of times that a model was read."""
    reads = []
    read = head_reading.head_inputs
    monkeypatch.setattr(head_reading, "SMALL", 0)
    monkeypatch.setattr(head_reading, "head_inputs", lambda *a, **k: reads.append(1) or read(*a, **k))
    return ReadingCache(tmp_path), reads


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_what_the_last_layer_reads_is_kept_for_other_labels_of_the_same_texts(family, cache):
    (kept, reads), rows = cache, rows_of(20)
    found = []
    for labels in (("no", "yes", "perhaps"), ("a", "b")):
        model = tiny.classifier(family).eval()
        set_head(model, labels, seed=len(labels))
        found.append(head_reading.last_layer_inputs(model, tiny.tokenizer(), rows, kept, batch_size=8))
        plain = head_inputs(model, tiny.tokenizer(), rows, last_layer(model)[1], batch_size=8)
        assert torch.equal(found[-1], plain)
    assert torch.equal(*found) and len(reads) == 1


def test_other_weights_texts_or_batches_are_read_anew(cache):
    (kept, reads), rows = cache, rows_of(20)
    model = tiny.classifier("bert").eval()
    for count, size in ((20, 8), (19, 8), (20, 4)):
        head_reading.last_layer_inputs(model, tiny.tokenizer(), rows[:count], kept, batch_size=size)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    head_reading.last_layer_inputs(model, tiny.tokenizer(), rows, kept, batch_size=8)
    assert len(reads) == 4
