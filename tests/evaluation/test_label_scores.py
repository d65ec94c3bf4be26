"""Scores of labels against the definition: one example at a time, without padding, from all logits."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.locally import adapted, download
from torch.nn.functional import log_softmax

from h2tune.errors import H2TuneError
from h2tune.evaluation.evaluate import label_scores
from h2tune.tasks.task import Example, Task
from h2tune.training.encode import Encoded, causal_batch, encode_causal
from h2tune.training.prompt_tokens import label_answers

LENGTHS = (3, 9, 1, 6, 12, 6, 2)
ONE, SEVERAL = (" good", " bad", " fine"), (" good film", " bad", " not very good")


def task(words) -> Task:
    labels = ("a", "b", "c")
    return Task("t", "label", labels, words, "{text}", "", "", "label", 32)


def examples(words=()) -> list[Encoded]:
    draw = torch.Generator().manual_seed(3)
    prompts = [tuple(torch.randint(3, 60, (n,), generator=draw).tolist()) for n in LENGTHS]
    return [Encoded(prompt, (), 0, choices=tuple(words)) for prompt in prompts]


def plainly(model, encoded, words):
    """Return log p(word | prompt) by the definition, or a classifier's logits."""
    rows = []
    with torch.no_grad():
        for item in encoded:
            if words is None:
                rows.append(model(torch.tensor([item.prompt])).logits[0])
                continue
            row = []
            for word in words:
                logits = model(torch.tensor([[*item.prompt, *word]]), use_cache=False).logits[0]
                steps = log_softmax(logits.float(), -1)[len(item.prompt) - 1 : -1]
                row.append(sum(steps[i, token] for i, token in enumerate(word)))
            rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("words", [ONE, SEVERAL])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_decoders_in_padded_batches_with_the_needed_logits_alone(family, words, batch_size):
    model, tokenizer = tiny.causal(family), tiny.tokenizer()
    choices = label_answers(task(words), tokenizer)
    encoded = examples(choices)
    expected = plainly(model, encoded, choices)
    with torch.no_grad():
        found = label_scores(model, task(words), encoded, tokenizer, causal=True, batch_size=batch_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.01  # else anything would pass


PREFIX = (" good", " good film", " bad")


def test_a_label_that_begins_another_is_scored_with_an_end():
    model, tokenizer = tiny.causal("llama"), tiny.tokenizer()
    bare = [tuple(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in PREFIX]
    words = [(*word, tokenizer.eos_token_id) for word in bare]
    encoded = examples(label_answers(task(PREFIX), tokenizer))
    with torch.no_grad():
        found = label_scores(model, task(PREFIX), encoded, tokenizer, causal=True, batch_size=3)
    torch.testing.assert_close(found, plainly(model, encoded, words), rtol=0, atol=1e-5)


def test_both_of_two_labels_can_be_learned_where_one_begins_the_other():
    model, tokenizer = tiny.causal("llama"), tiny.tokenizer()
    rows = [
        Example(text, PREFIX[label], label, text) for label, text in enumerate(("film fine", "film poor"))
    ]
    encoded = encode_causal(task(PREFIX), rows, tokenizer)
    batch = causal_batch(encoded, 0, positions=True)
    inputs, labels = {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits = model(**inputs).logits[:, -labels.shape[1] :]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = label_scores(model, task(PREFIX), encoded, tokenizer, causal=True, batch_size=2)
    assert found.argmax(1).tolist() == [0, 1]


def test_the_end_is_trained_too():
    tokenizer = tiny.tokenizer()
    example = Example("film", " good", 0, "film")
    (with_end,) = encode_causal(task(PREFIX), [example], tokenizer)
    (without,) = encode_causal(task(ONE), [example], tokenizer)
    assert with_end.answer == (*without.answer, tokenizer.eos_token_id)


def test_labels_of_the_same_tokens_are_refused():
    with pytest.raises(H2TuneError, match="have the same tokens"):
        label_answers(task((" good", " bad", " good")), tiny.tokenizer())


def test_without_an_end_of_sequence_token_a_label_that_begins_another_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    assert label_answers(task(ONE), tokenizer)
    with pytest.raises(H2TuneError, match="tokens of label 'good' begin those of 'good film'"):
        label_answers(task(PREFIX), tokenizer)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_classifiers_in_padded_batches(batch_size):
    model, encoded = tiny.classifier("bert"), examples()
    with torch.no_grad():
        found = label_scores(model, task(()), encoded, tiny.tokenizer(), causal=False, batch_size=batch_size)
    torch.testing.assert_close(found, plainly(model, encoded, None), rtol=0, atol=1e-5)


def test_m_that_is_written_down_once_is_the_m_that_is_worked_out_in_each_pass():
    one = adapted("llama")
    one.receive(download(one, 1))
    tokens, shared = torch.tensor([[1, 5, 9, 4]]), one.shared
    with torch.no_grad():
        for layer in shared.layers.values():  # with B at zero M would not show
            layer.h2tune_up["default"].normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        written = one.model(tokens).logits
    shared.logits.requires_grad_(True)
    live = one.model(tokens).logits
    assert torch.equal(written, live) and live.requires_grad
    assert all(layer.live for layer in shared.layers.values())
    with torch.no_grad():
        shared.logits.add_(torch.randn(shared.logits.shape, generator=torch.Generator().manual_seed(0)))
        moved = one.model(tokens).logits
    assert not torch.equal(moved, written)
    torch.testing.assert_close(moved, one.model(tokens).logits, rtol=0, atol=1e-6)


def test_m_is_worked_out_once_a_change_and_not_in_each_pass(monkeypatch):
    from h2tune.functional import alignment

    one = adapted("llama")
    one.receive(download(one, 1))
    worked, original = [], alignment.to_blocks
    monkeypatch.setattr(alignment, "to_blocks", lambda *a: worked.append(1) or original(*a))
    tokens = torch.tensor([[1, 5, 9, 4]])
    with torch.no_grad():
        for _ in range(3):
            one.model(tokens)
        assert not worked  # it was written down when it came
        one.shared.logits.add_(1.0)
        for _ in range(3):
            one.model(tokens)
    assert len(worked) == 1
