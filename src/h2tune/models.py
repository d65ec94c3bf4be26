"""Base models: their folders, configurations, weights and tokenizers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
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
from h2tune.heads import head_modules, note_new_modules
from h2tune.quiet import quiet
from h2tune.seeds import derive, isolated

Kind = Literal["causal", "classifier"]
DEMO = "pypi:"
PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


def folder_of(model: str) -> str:
    """Return the folder or Hub id that Transformers loads; a demo asset becomes its folder in the cache.

    Raises:
        H2TuneError: A local folder does not exist, or a demo asset was not fetched yet.
    """
    if model.startswith(DEMO):
        return str(assets.path_of(model.removeprefix(DEMO)))
    if is_local(model) and not Path(model).expanduser().is_dir():
        raise H2TuneError(
            "no such folder", where=f"model {model}", remedy="Give a folder, a Hub id or pypi:NAME"
        )
    return model


def is_local(model: str) -> bool:
    """Return whether a model is named by its folder."""
    return model.startswith(("/", ".", "~"))


def licence(model: str) -> str:
    """Return what is known of a model's licence without asking a hub, one phrase for a model card."""
    if model.startswith(DEMO):
        return assets.find(model).license
    if not is_local(model):
        return f"see https://huggingface.co/{model}"
    card = Path(model).expanduser() / "README.md"
    head = card.read_text(errors="replace")[:10_000].split("\n---")[0] if card.is_file() else ""
    named = re.search(r"^license(?:_name)?: *([\w.+-]{1,60}) *$", head, flags=re.MULTILINE)
    return named[1] if named and head.startswith("---") else "not stated in its folder"


def read_config(model: str, *, code: bool = False) -> PretrainedConfig:
    """Return a model's configuration; no weights are read, and demo assets need not be fetched.

    Args:
        model: A folder, a Hub id or a demo asset.
        code: Whether Python files of the model's own may run.

    Raises:
        H2TuneError: The model is unknown or cannot be downloaded.
    """
    if model.startswith(DEMO):
        raw = assets.model_config(model.removeprefix(DEMO))
        return AutoConfig.for_model(**raw)
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder_of(model), trust_remote_code=code)
    except (OSError, ValueError) as error:
        _refuse_code(error, model)
        raise H2TuneError(
            f"cannot be located or read ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
            remedy="Give a folder with config.json, an accessible Hub id, or pypi:NAME (h2tune assets list)",
        ) from None


def _refuse_code(error: Exception, model: str) -> None:
    """Raise where Transformers would run Python files of a model's own; it would ask on a terminal.

    Raises:
        H2TuneError: The error is about such files.
    """
    if "trust_remote_code" in str(error):
        raise H2TuneError(
            "it comes with Python code of its own, which could do anything on this machine and was not run",
            where=f"model {model}",
            remedy="Use a model of a type that Transformers knows, or read its code and then set "
            "client.trust_remote_code = true",
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
    own = getattr(config, "auto_map", None) or {}
    if encoder or ("AutoModelForSequenceClassification" in own and "AutoModelForCausalLM" not in own):
        return "classifier"
    if "AutoModelForCausalLM" in own:
        return "causal"
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise H2TuneError(
            f"models of type '{config.model_type}' are not supported",
            where="model",
            remedy="Use a decoder (Llama, Gemma, GPT-2, …) or an encoder (BERT, RoBERTa, …)",
        )
    return "causal"


def empty_model(config: PretrainedConfig, kind: Kind, labels: int, *, code: bool = False) -> PreTrainedModel:
    """Return a model without weights, on the meta device, for its modules and shapes."""
    with quiet(), torch.device("meta"):
        if kind == "causal":
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=code)
        else:
            config.num_labels = labels
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=code)
    return model


def load_model(
    model: str, kind: Kind, dtype: str, seed: int, *, safetensors: bool = False, code: bool = False
) -> PreTrainedModel:
    """Load a base model; missing weights, such as those of a head, are drawn from the seed.

    Args:
        model: A folder, a Hub id or a demo asset.
        kind: Whether it gets a classification head.
        dtype: Number format of its weights.
        seed: Seed of missing weights.
        safetensors: Whether weights in other formats are refused, as of a model that somebody else named.
        code: Whether Python files of the model's own may run.

    Raises:
        H2TuneError: The model cannot be loaded.
    """
    folder = folder_of(model)
    cls = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    try:
        options = _quantised(model, kind, code) if dtype == "nf4" else {"dtype": getattr(torch, dtype)}
        options["trust_remote_code"] = code
        if safetensors:
            options["use_safetensors"] = True
        with quiet(), isolated(seed, "model", model):
            loaded, info = cls.from_pretrained(folder, output_loading_info=True, **options)
    except RuntimeError as error:
        if "mismatch" not in str(error):  # such as too little memory
            raise
        raise H2TuneError(
            "its weights have other shapes than its config.json says",
            where=f"model {model}",
            remedy="Download it again, or restore the two files",
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        _refuse_code(error, model)
        raise H2TuneError(
            f"cannot be loaded ({str(error).strip().splitlines()[0]})", where=f"model {model}"
        ) from None
    if kind == "classifier":
        note_new_modules(loaded, info["missing_keys"], model)
    loaded.config.use_cache = False
    for module in loaded.modules() if dtype == "nf4" else ():
        # with AVX-512 BF16 bitsandbytes 0.50 repacks the weights when a model is scored on a CPU: that fails where a
        # layer's input width is not a multiple of 64, and rounds the scales a second time when training continues
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if (head := loaded.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_contiguous)
    return cast(PreTrainedModel, loaded.eval())


def _quantised(model: str, kind: Kind, code: bool) -> dict[str, Any]:
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
        plain = empty_model(read_config(model, code=code), kind, 2, code=code)
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


def load_tokenizer(model: str, *, code: bool = False) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; arguments as in `read_config`.

    Raises:
        H2TuneError: It is missing or cannot be read.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder_of(model), trust_remote_code=code
            )
    except (OSError, ValueError) as error:
        _refuse_code(error, model)
        raise H2TuneError(
            f"has no readable tokenizer ({str(error).strip().splitlines()[0]})",
            where=f"model {model}",
        ) from None
    return tokenizer


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


def vocabulary(config: PretrainedConfig) -> int | None:
    """Return the number of tokens that a model knows; None if its configuration does not state it."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    return int(size) if size else None


def summary(config: PretrainedConfig) -> dict[str, Any]:
    """Return a model's family and width, as reports show them."""
    text = config.get_text_config()
    return {"family": config.model_type, "width": int(getattr(text, "hidden_size", 0))}
