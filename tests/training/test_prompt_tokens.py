"""Prompts and answers in tokens, with every trait of a tokenizer, against plain Transformers on the whole text."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from helpers import tiny, traits
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from h2tune.errors import H2TuneError
from h2tune.evaluation.evaluate import label_scores
from h2tune.evaluation.generate import generated
from h2tune.tasks.prompts import fill, filled, joined
from h2tune.tasks.task import Example, Task
from h2tune.training.encode import causal_batch, encode_causal
from h2tune.training.encode import encode_texts as encode_text_rows
from h2tune.training.prompt_tokens import continued, label_answers, prompt_tokens, room
from h2tune.training.readings import encode_texts, token_scores

WORDS = (" positive", " negative", " not good")
LETTERS = "abegnst"


@cache
def tokenizer(trait: str):
    return traits.tokenizer(trait)


@cache
def decoder(trait: str):
    return tiny.causal("llama", vocab=len(tokenizer(trait)) + 1)


def task(template="Review: {text}\nSentiment:", words=WORDS, **changes) -> Task:
    labels = tuple(word.strip() for word in words)
    options = {"kind": "label", "labels": labels, "verbalisers": words, "max_length": 200, **changes}
    return Task("t", template=template, source="", license="", scorer="label", **options)


def example(of: Task, text: str, label: int | None = 0, answer: str = "") -> Example:
    prompt = filled(of.template, {"text": text})
    return Example(prompt.text, answer or WORDS[label or 0], label, text, prompt.fields)


def whole(trait: str, text: str) -> list[int]:
    """Return the tokens of a text, without those that the tokenizer adds at its end."""
    ids = tokenizer(trait)(text)["input_ids"]
    return ids[:-1] if trait in ("adds EOS", "adds CLS and SEP") else ids


@pytest.mark.parametrize("template", ["Review: {text}\nSentiment:", "Review: {text} Sentiment: ", "{text}"])
@pytest.mark.parametrize("trait", traits.TRAITS)
def test_prompt_and_answer_are_the_tokens_of_the_text_as_a_whole(trait, template):
    of = task(template)
    for label, word in enumerate(WORDS):
        (row,) = encode_causal(of, [example(of, "the film is good", label)], tokenizer(trait))
        text = fill(template, {"text": "the film is good"}).rstrip(" ") + word
        assert [*row.prompt, *row.answer] == whole(trait, text)
        assert row.answer == row.choices[label] and len(row.answer) >= 1
        assert tokenizer(trait).decode(row.answer).strip() == word.strip()


@pytest.mark.parametrize("trait", traits.TRAITS)
def test_log_odds_of_labels_are_those_of_plain_transformers(trait):
    of, model = task(), decoder(trait)
    texts = ["the film is good", "a poor cast", "it was not very fine and so dull"]
    rows = encode_causal(of, [example(of, text) for text in texts], tokenizer(trait))
    with torch.no_grad():
        found = label_scores(model, of, rows, tokenizer(trait), causal=True, batch_size=2)
        for text, scores in zip(texts, found, strict=True):
            prompt = whole(trait, fill(of.template, {"text": text}))
            by_hand = []
            for word in WORDS:
                ids = whole(trait, fill(of.template, {"text": text}) + word)
                assert ids[: len(prompt)] == prompt
                steps = log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0], -1)
                by_hand.append(sum(steps[i - 1, ids[i]] for i in range(len(prompt), len(ids))))
            torch.testing.assert_close(scores, torch.stack(by_hand), rtol=0, atol=1e-5)


@pytest.mark.parametrize("trait", traits.TRAITS)
def test_an_answer_is_generated_after_the_prompt_that_was_trained_on(trait):
    of = task(kind="generate", labels=(), verbalisers=(), new_tokens=5)
    asked = example(of, "the film is good", None, " fine")
    (row,) = encode_causal(of, [asked], tokenizer(trait))
    model = decoder(trait)
    model.generation_config.eos_token_id = None
    found = generated(model, of, [asked], tokenizer(trait))
    expected = model.generate(
        torch.tensor([row.prompt]), max_new_tokens=5, do_sample=False, eos_token_id=1, pad_token_id=0
    )[0, len(row.prompt) :]
    assert found == [tokenizer(trait).decode(expected, skip_special_tokens=True)]


@pytest.mark.parametrize("trait", traits.TRAITS)
def test_public_texts_are_read_where_the_answer_would_begin(trait):
    of, model = task(words=(" good", " bad")), decoder(trait)
    (row,) = encode_texts(tokenizer(trait), of, ["the film"], causal=True)
    prompt = whole(trait, fill(of.template, {"text": "the film"}))
    assert list(row.prompt) == prompt and row.answer == () and row.label is None
    with torch.no_grad():
        out = model(torch.tensor([prompt]), output_hidden_states=True, use_cache=False)
        scores = token_scores(model, out.hidden_states[-1][:, -1], [row], 2)
    firsts = [choice[0] for choice in label_answers(of, tokenizer(trait))]
    torch.testing.assert_close(scores[0], out.logits[0, -1, firsts], rtol=0, atol=1e-5)


@pytest.mark.parametrize("trait", traits.TRAITS)
def test_a_long_text_loses_its_middle_and_the_template_stays(trait):
    of = task(max_length=60)
    long = "the cast is poor " + "and so it was " * 30 + "but the plot is warm"
    (row,) = encode_causal(of, [example(of, long)], tokenizer(trait))
    text = tokenizer(trait).decode(row.prompt, skip_special_tokens=True).lower()
    assert 40 <= len(row.prompt) <= 60 and row.kept < 0.5
    assert "the cast" in text and text.rstrip().endswith("sentiment:") and "warm" in text


@given(st.text(LETTERS + " ", max_size=12), st.lists(st.text(LETTERS, min_size=1, max_size=6), min_size=1))
@pytest.mark.parametrize("trait", traits.TRAITS)
def test_nothing_is_lost_or_doubled_at_the_boundary(trait, prompt, answers):
    """Also where a token spans the end of the prompt and the beginning of an answer."""
    found = continued(prompt, answers, tokenizer(trait))
    for answer, tokens in zip(answers, found.answers, strict=True):
        assert [*found.prompt, *tokens] == whole(trait, prompt + answer)


def test_a_token_that_spans_the_boundary_is_the_answer_s():
    words = tokenizer("plain")
    joined = words("a positive")["input_ids"]
    found = continued("a posi", ["tive"], words)
    assert [*found.prompt, *found.answers[0]] == joined and len(found.answers[0]) == 1


def test_spaces_at_the_end_of_a_prompt_are_not_doubled():
    words = tokenizer("plain")
    assert continued("a: ", [" good"], words) == continued("a:", [" good"], words)
    assert prompt_tokens("a: ", words) == prompt_tokens("a:", words)


@pytest.mark.parametrize("labels", [("1", "10"), ("J1", "J18")])
@pytest.mark.parametrize("trait", traits.TRAITS)
def test_labels_of_which_one_begins_the_other_end_with_a_token(trait, labels):
    words = tuple(f" {label}" for label in labels)
    answers = label_answers(task(words=words), tokenizer(trait))
    bare = continued("Review: text\nSentiment:", words, tokenizer(trait)).answers
    if bare[1][: len(bare[0])] == bare[0]:
        assert answers == tuple((*answer, 1) for answer in bare)
    else:
        assert answers == bare


def test_labels_that_a_tokenizer_writes_alike_are_refused():
    of = task(words=(" A", " a"))
    assert label_answers(of, tokenizer("plain"))
    with pytest.raises(H2TuneError, match="'A' and 'a' have the same tokens"):
        label_answers(of, tokenizer("lower-cases"))


def test_without_a_padding_token_batches_are_padded_and_masked():
    of, words = task(), tokenizer("has no pad")
    rows = encode_causal(of, [example(of, "good"), example(of, "the film is very good")], words)
    model = decoder("has no pad")
    with torch.no_grad():
        both = label_scores(model, of, rows, words, causal=True, batch_size=2)
        single = torch.cat([label_scores(model, of, [row], words, causal=True, batch_size=1) for row in rows])
    torch.testing.assert_close(both, single, rtol=0, atol=1e-5)


def test_prompt_and_answer_fit_into_the_model_s_positions():
    of, words = task(positions=48, max_length=48), tokenizer("plain")
    rows = encode_causal(of, [example(of, "the film is good " * 20, label) for label in range(3)], words)
    assert all(len(row.prompt) + max(map(len, row.choices)) <= 48 for row in rows)
    free = task(positions=48, max_length=48, kind="generate", labels=(), verbalisers=(), new_tokens=20)
    assert room(free, words) == 28
    (row,) = encode_causal(free, [example(free, "film", None, " and so" * 60)], words)
    assert len(row.prompt) + len(row.answer) == 48
    batch = causal_batch([row], 0, positions=True)
    assert batch["input_ids"].shape[1] < 48


def test_a_generated_answer_fits_into_the_model_s_positions():
    of = task(positions=64, max_length=64, kind="generate", labels=(), verbalisers=(), new_tokens=20)
    model = tiny.causal("gpt2", vocab=len(tokenizer("plain")), n_positions=64)
    assert generated(model, of, [example(of, "the film is good " * 30, None)], tokenizer("plain"))


def test_an_answer_that_leaves_no_position_for_a_prompt_is_refused():
    of = task(positions=48, kind="generate", labels=(), verbalisers=(), new_tokens=48)
    with pytest.raises(H2TuneError, match="48 positions, and 48 tokens of an answer leave none"):
        encode_causal(of, [example(of, "film", None)], tokenizer("plain"))


@pytest.mark.parametrize("trait", ["plain", "adds CLS and SEP", "slow"])
def test_an_encoder_keeps_the_question_after_a_long_passage(trait):
    words, of = tokenizer(trait), task(max_length=40)
    passage, question = "the film is a game and " * 20, "is the book good ?"
    both, one = joined([passage, question]), passage + question
    (several,) = encode_text_rows(of, [Example("", "", 0, both.text, (), both.fields)], words)
    (single,) = encode_text_rows(of, [Example("", "", 0, one)], words)
    assert len(several.prompt) <= 40 and words.decode(several.prompt, skip_special_tokens=True).endswith(
        question
    )
    assert list(single.prompt) == words(one, truncation=True, max_length=40)["input_ids"]
    assert several.kept < 0.5 and single.kept < 0.5


def test_a_short_text_of_an_encoder_is_the_tokenizer_s_own():
    words, text = tokenizer("adds CLS and SEP"), joined(["the film", "is good ?"])
    (row,) = encode_text_rows(task(), [Example("", "", 1, text.text, (), text.fields)], words)
    assert list(row.prompt) == words(text.text)["input_ids"] and (row.label, row.kept) == (1, 1.0)


def test_a_beginning_that_the_prompt_has_already_is_not_doubled():
    """As of a prompt that was taken from a chat template."""
    words = tokenizer("adds BOS")
    twice, once = (prompt_tokens(text, words) for text in (f"{traits.START}the film", "the film"))
    assert twice == once and twice.count(words.bos_token_id) == 1
    assert continued(f"{traits.START}the film", [" good"], words) == continued("the film", [" good"], words)


def test_the_end_is_learned_where_it_pads_too():
    words = tiny.tokenizer(side="left")
    words.pad_token = words.eos_token
    of = task(kind="generate", labels=(), verbalisers=())
    rows = encode_causal(of, [example(of, "film", None, " good"), example(of, "a film", None, " bad")], words)
    batch = causal_batch(rows, words.pad_token_id, positions=True)
    assert batch["labels"][:, -1].tolist() == [words.eos_token_id] * 2


def test_a_model_s_own_defaults_of_generation_change_no_score():
    of = task(kind="generate", labels=(), verbalisers=(), new_tokens=12)
    model, asked = tiny.causal("llama", vocab=len(tokenizer("plain"))), [example(of, "the film", None)]
    greedy = generated(model, of, asked, tokenizer("plain"))
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = tokenizer("plain")(greedy[0])["input_ids"]
    assert generated(model, of, asked, tokenizer("plain")) == greedy
    assert model.generation_config.repetition_penalty == 3.0
