"""Tokenizers with the traits that real ones have, trained on the words of `tiny`."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from helpers.tiny import EOS, PAD, UNKNOWN, WORDS

START, SEPARATOR = "[BOS]", "[SEP]"
SPECIAL = [PAD, EOS, UNKNOWN, START, SEPARATOR]
TRAITS = (
    "plain",
    "adds BOS",
    "adds EOS",
    "adds CLS and SEP",
    "prepends a space",
    "lower-cases",
    "has no pad",
    "slow",
)
"""What tokenizers do, as the table of docs/tokenizers.md lists it."""
SIZE = 480


def tokenizer(trait: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer with one of `TRAITS`; pad 0, end 1, unknown 2."""
    if trait == "slow":
        return SlowTokenizer(pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN)
    return PreTrainedTokenizerFast(
        tokenizer_object=_trained(trait),
        pad_token=None if trait == "has no pad" else PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        bos_token=START,
        model_max_length=256,
    )


def _trained(trait: str) -> Tokenizer:
    """Return a BPE tokenizer, trained on the words of `tiny`."""
    if trait == "prepends a space":  # as SentencePiece does
        made = Tokenizer(models.BPE(unk_token=UNKNOWN))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        alphabet = ["▁", "\n", *"RS"]
    else:
        made = Tokenizer(models.BPE(unk_token=UNKNOWN))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    if trait == "lower-cases":
        made.normalizer = normalizers.Lowercase()
    letters = sorted({letter for word in WORDS for letter in word} | set("ABXYZ0123456789()"))
    texts = [" ".join(WORDS), *(f"a {word}" for word in WORDS), "1 2 3 10 12 J1 J18"] * 4
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=SIZE,
            special_tokens=SPECIAL,
            initial_alphabet=[*alphabet, *letters],
            show_progress=False,
        ),
    )
    frame = {
        "adds BOS": f"{START} $A",
        "adds EOS": f"$A {EOS}",
        "adds CLS and SEP": f"{START} $A {SEPARATOR}",
    }
    if trait in frame:
        special = [(word, SPECIAL.index(word)) for word in (START, EOS, SEPARATOR)]
        made.post_processor = processors.TemplateProcessing(single=frame[trait], special_tokens=special)
    return made


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python, without offsets: letters, and words of `tiny` with the space before them."""

    def __init__(self, **options: Any) -> None:
        letters = sorted({letter for word in WORDS for letter in word} | set(" \nABJRSX01289():"))
        pieces = dict.fromkeys([*SPECIAL, *letters, *(f" {word}" for word in WORDS)])
        self.vocabulary = {piece: i for i, piece in enumerate(pieces)}
        self.pieces = list(pieces)
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocabulary)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        found, place = [], 0
        while place < len(text):
            end = next(
                (e for e in range(len(text), place, -1) if text[place:e] in self.vocabulary), place + 1
            )
            found.append(text[place:end])
            place = end
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self.vocabulary.get(token, self.vocabulary[UNKNOWN])

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)
