"""Tiny random models, tokenizers and model folders, built in code, for all tests.

>>> model = tiny.causal("gemma2", blocks=3)
>>> folder = tiny.save_model_folder(tmp_path / "films", "bert", words=["good", "bad"])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, EOS, UNKNOWN = "[PAD]", "[EOS]", "[UNK]"
WORDS = """
the a an and or but not no is was it this that film book game news review text sentiment answer topic : ? . ,
good bad great poor fine dull warm cold positive negative neutral sport business tech yes one two three four
plot cast score team market phone very so too
""".split()  # noqa: SIM905 - a list literal would take a page
"""Words of the default vocabulary; with the special tokens they fit into 64 entries."""

ENCODERS = ("bert", "roberta", "distilbert", "modernbert")


def _standard(family: str, **extra: Any) -> Callable[..., PretrainedConfig]:
    """Return the builder of a family with the usual names of sizes."""

    def build(*, blocks: int, width: int, vocab: int, heads: int, **options: Any) -> PretrainedConfig:
        sizes: dict[str, Any] = {
            "vocab_size": vocab,
            "hidden_size": width,
            "intermediate_size": width * 3 // 2,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "max_position_embeddings": 256,
        }
        if family not in (*ENCODERS, "gpt_neox"):
            sizes |= {"num_key_value_heads": max(1, heads // 2), "head_dim": width // heads}
        return AutoConfig.for_model(family, **{**sizes, **extra, **options})

    return build


def _named(
    family: str, width: str, inner: str, blocks: str, heads: str, **extra: Any
) -> Callable[..., PretrainedConfig]:
    """Return the builder of a family with other names of sizes; `inner` is empty where it is fixed at 4 × width."""
    names = {"width": width, "blocks": blocks, "heads": heads}

    def build(*, vocab: int, **options: Any) -> PretrainedConfig:
        sizes = {names[size]: options.pop(size) for size in names}
        if inner:
            sizes[inner] = sizes[width] * 3 // 2
        return AutoConfig.for_model(family, **{"vocab_size": vocab, **sizes, **extra, **options})

    return build


_BERT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": _standard("llama"),
    "mistral": _standard("mistral"),
    "qwen2": _standard("qwen2"),
    "qwen3": _standard("qwen3"),
    "gemma2": _standard("gemma2", query_pre_attn_scalar=8),
    "gemma3_text": _standard("gemma3_text", query_pre_attn_scalar=8),
    "phi3": _standard("phi3"),
    "gpt2": _named(
        "gpt2", "n_embd", "n_inner", "n_layer", "n_head",
        n_positions=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "gpt_neox": _standard("gpt_neox", classifier_dropout=0.0),
    "opt": _named(
        "opt", "hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads",
        max_position_embeddings=256, dropout=0.0, init_std=0.1,
    ),
    "falcon": _named("falcon", "hidden_size", "ffn_hidden_size", "num_hidden_layers", "num_attention_heads"),
    "bloom": _named("bloom", "hidden_size", "", "n_layer", "n_head"),
    "bert": _standard("bert", **_BERT_DROPOUT),
    "roberta": _standard("roberta", **_BERT_DROPOUT),
    "distilbert": _named(
        "distilbert", "dim", "hidden_dim", "n_layers", "n_heads",
        max_position_embeddings=256, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
    ),
    "modernbert": _standard("modernbert", local_attention=16, cls_token_id=1, sep_token_id=1),
}  # fmt: skip
"""Configuration builders by `config.model_type`."""

DECODERS = tuple(family for family in FAMILIES if family not in ENCODERS)


def config(
    family: str, *, blocks: int = 2, width: int = 32, vocab: int = 64, heads: int = 4, **options: Any
) -> PretrainedConfig:
    """Return a tiny configuration: eager attention, no dropout, pad 0, end 1, weights large enough to matter.

    Args:
        family: A key of `FAMILIES`.
        blocks: Blocks L.
        width: Hidden size; the MLP is 1.5 times as wide (4 times in BLOOM).
        vocab: Entries of the vocabulary.
        heads: Attention heads; half as many key-value heads where the family has them, one in Falcon.
        options: Anything else the family's configuration takes, under the family's own names.
    """
    common: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    if family != "opt":
        common["initializer_range"] = 0.1
    common["attn_implementation"] = "eager"
    return FAMILIES[family](blocks=blocks, width=width, vocab=vocab, heads=heads, **{**common, **options})


def causal(family: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """Return a tiny decoder in evaluation mode, float32; `options` go to `config`."""
    if family in ENCODERS:
        raise ValueError(f"{family} is an encoder; use classifier()")
    with _seeded(seed):
        return AutoModelForCausalLM.from_config(config(family, **options), dtype=torch.float32).eval()


def classifier(family: str, seed: int = 0, labels: int = 3, **options: Any) -> PreTrainedModel:
    """Return a tiny encoder or decoder with a classification head over `labels`, in evaluation mode, float32."""
    with _seeded(seed):
        return AutoModelForSequenceClassification.from_config(
            config(family, num_labels=labels, **options), dtype=torch.float32
        ).eval()


def tokenizer(
    words: Sequence[str] = (), *, vocab: int = 64, side: str = "right", length: int = 256
) -> PreTrainedTokenizerFast:
    """Return a fast word-level tokenizer: pad 0, end 1, unknown 2; every sequence starts with the end token.

    Args:
        words: Words it must know; they come first, then those of `WORDS` for which there is room.
        vocab: Entries at least; the vocabulary is filled up to it and grows beyond it only for `words`.
        side: Padding side.
        length: Longest sequence the model takes.
    """
    kept = [PAD, EOS, UNKNOWN, *dict.fromkeys(words)]
    kept += [word for word in WORDS if word not in words][: max(0, vocab - len(kept))]
    kept += [f"[unused{i}]" for i in range(vocab - len(kept))]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(kept)}, unk_token=UNKNOWN))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        single=f"{EOS} $A", pair=f"{EOS} $A $B", special_tokens=[(EOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side=side,
        model_max_length=length,
    )


def save_model_folder(
    path: Path | str,
    family: str,
    *,
    kind: str | None = None,
    labels: int = 3,
    seed: int = 0,
    words: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Save a tiny model and its tokenizer as an ordinary local folder, and return the folder.

    Args:
        path: The folder; made if need be.
        family: A key of `FAMILIES`.
        kind: "causal" or "classifier"; by default what the family is pretrained as here.
        labels: Labels of a classifier.
        seed: Seed of the weights.
        words: Words the tokenizer must know; the vocabulary grows for them.
        options: Given to `config`.
    """
    if family == "qwen2":
        raise ValueError("Transformers reads every qwen2 tokenizer as byte-level BPE; use qwen3")
    words_known = tokenizer(
        words, vocab=options.pop("vocab", 64), side="left" if family in DECODERS else "right"
    )
    options["vocab"] = len(words_known)
    if (kind or ("classifier" if family in ENCODERS else "causal")) == "classifier":
        model = classifier(family, seed, labels, **options)
    else:
        model = causal(family, seed, **options)
    folder = Path(path)
    model.save_pretrained(folder)
    words_known.save_pretrained(folder)
    return folder


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw weights from `seed`, and restore the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
