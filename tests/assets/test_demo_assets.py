"""The real demo assets: fetched if they are not in the cache, loaded with Transformers, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from h2tune import assets
from h2tune.errors import H2TuneError
from h2tune.tasks.load import describe_task, load_task
from h2tune.training.prompt_tokens import fitted

DECODERS = ("smollm2-135m-instruct", "gemma-3-270m")
CONVERTED = ("paraphrase-minilm-l3-v2", "e5-small-en-pt", "distilbert-cased-grammar", "bert-tiny-splade")
TASKS = ("movie_reviews", "tweets", "bbc_topics")

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def offline() -> Iterator[None]:
    """All assets in the cache, and no access to the Hub."""
    for name in (*assets.MODELS, *assets.DATASETS):
        assets.fetch(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.mark.parametrize("name", assets.MODELS)
def test_shipped_config_is_that_of_the_folder(name: str, offline: None) -> None:
    found = json.loads((assets.path_of(name) / "config.json").read_text())
    for own in ("transformers_version", "_name_or_path"):
        found.pop(own, None)
    assert assets.model_config(name) == found


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_speaks_and_its_tokenizer_round_trips(name: str, offline: None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = assets.path_of(name)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and not hasattr(model.config, "quantization_config")

    inputs = tokenizer("Once upon a time, there was a little", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "little girl named" in tokenizer.decode(output[0])
    for text in ("Hello  world! 12345 naïve £600m\n\ttab <tag> …", "x = 3.14 * (2 + 7)\nprint(x)"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.pad_token_id == model.config.pad_token_id is not None
    assert tokenizer(["a", "a b c"], padding=True, return_tensors="pt")["attention_mask"].sum() < 8

    for task in map(describe_task, TASKS):
        words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in task.verbalisers]
        assert all(len(word) == 1 for word in words)
        frame = tokenizer("x" + task.template.rpartition("}")[2])["input_ids"]
        for verbaliser, word in zip(task.verbalisers, words, strict=True):
            assert tokenizer("x" + task.template.rpartition("}")[2] + verbaliser)["input_ids"] == frame + word


@pytest.mark.parametrize("name", DECODERS)
def test_long_articles_are_shortened_before_the_question(name: str, offline: None) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets.path_of(name))
    task, splits = load_task("bbc_topics", train=50, validation=0, test=0, seed=0)
    for example in splits.train:
        short, kept = fitted(example.prompt, example.fields, tokenizer, task.max_length)
        assert task.max_length - 12 <= len(tokenizer(short)["input_ids"]) <= task.max_length
        assert short.startswith(example.prompt[:100]) and short.endswith("\nTopic:") and 0 < kept < 1


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "paraphrase-minilm-l3-v2"])
def test_encoder_knows_what_belongs_together(name: str, offline: None) -> None:
    texts = ["A man is eating food.", "A man eats a piece of bread.", "The stock market fell."]
    near, far = _likeness(name, texts)
    assert near > 0.5 > 0.2 > far


def _likeness(name: str, texts: list[str]) -> list[float]:
    """Return the cosine similarity of the mean states of the first text and each other."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = assets.path_of(name)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        pooled = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
    return [float(torch.cosine_similarity(pooled[0], other, dim=0)) for other in pooled[1:]]


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_encoder_is_whole(name: str, offline: None) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = assets.path_of(name)
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    ours = {kind: [key for key in keys if not key.startswith("cls.")] for kind, keys in loading.items()}
    assert not any(ours.values()), loading  # bert-tiny-splade has a head for words as well
    assert model.dtype == torch.float32 and all(bool(p.isfinite().all()) for p in model.parameters())
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size
    text = "the film was good, and 12 people saw it."
    inputs = tokenizer(text, return_tensors="pt")
    read = tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
    assert read.removeprefix("query: ") == text
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    assert states.isfinite().all() and 0.1 < states.std() < 3


def test_e5_knows_the_same_sentence_in_portuguese(offline: None) -> None:
    near, far = _likeness(
        "e5-small-en-pt", ["A man is eating bread.", "O homem está comendo pão.", "A bolsa de valores caiu."]
    )
    assert near > 0.85 > 0.8 > far  # E5 puts all texts close together


def test_splade_says_related_words(offline: None) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = assets.path_of("bert-tiny-splade")
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        scores = model(**tokenizer("The capital of France is Paris", return_tensors="pt")).logits.amax(1)[0]
    words = tokenizer.convert_ids_to_tokens(scores.topk(8).indices.tolist())
    assert {"paris", "french", "city"} <= set(words)


def test_small_minilm_reads_what_the_large_one_reads(offline: None) -> None:
    from transformers import AutoTokenizer

    small, large = (
        AutoTokenizer.from_pretrained(assets.path_of(n))
        for n in ("paraphrase-minilm-l3-v2", "all-minilm-l6-v2")
    )
    texts = ["A man is eating food.", "Héllo, WORLD! naïve £600m…\t[MASK] 東京 x", ""]
    assert small(texts)["input_ids"] == large(texts)["input_ids"]


POOLS = {
    "movie_reviews": 9529,
    "tweets": 2735,
    "bbc_topics": 2059,
    "amazon_reviews": 2585,
    "nyt_editorials": 1917,
    "medical_specialties": 9469,
    "wordnet_nouns": 72_084,
    "wordnet_verbs": 13_164,
}


@pytest.mark.parametrize(("name", "pool"), POOLS.items())
def test_demo_tasks_have_the_examples_they_should(name: str, pool: int, offline: None) -> None:
    kept = pool // 5
    _, splits = load_task(name, train=pool - kept - 50, validation=50, test=kept, seed=0)
    prompts = [e.prompt for e in (*splits.train, *splits.validation, *splits.test)]
    assert len(set(prompts)) == len(prompts) == pool
    assert len({e.label for e in splits.test}) == len(describe_task(name).labels)


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("reuters_r8", 5271, 2108), ("reuters_r52", 6247, 2478), ("boolq", 6764, 2883)],
)
def test_tasks_with_a_test_set_of_their_own_use_it_whole(
    name: str, train: int, test: int, offline: None
) -> None:
    _, splits = load_task(name, train=train - 50, validation=50, test=test, seed=0)
    prompts = [e.prompt for e in (*splits.train, *splits.validation, *splits.test)]
    assert len(set(prompts)) == len(prompts) == train + test
    assert len({e.label for e in splits.test}) == len(describe_task(name).labels)
    with pytest.raises(H2TuneError, match=f"{test} are left"):
        load_task(name, train=1, validation=0, test=test + 1, seed=0)
