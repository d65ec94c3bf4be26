"""Pooled inputs and outputs of a frozen model's modules on texts, and its final states."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
from h2tune.tasks.prompts import framed
from h2tune.tasks.task import Example, Task
from h2tune.training import encode
from h2tune.training.encode import Encoded, by_length, causal_batch, forward_arguments, pad_token, text_batch

Name = TypeVar("Name", bound=Hashable)
Progress = Callable[[int], None]


def unwatched(done: int) -> None:
    """Show nothing of how many texts are read."""


@dataclass
class HeadReading:
    """What the last layer of a classifier's head reads: a by-product of `read_rows`.

    Args:
        layer: The layer.
        inputs: Its inputs (n, d) once the texts are read.
    """

    layer: nn.Module
    inputs: Tensor = field(init=False)
    _mask: Tensor | None = field(default=None, repr=False)
    _batches: list[Tensor] = field(default_factory=list, repr=False)

    def begin(self, mask: Tensor) -> None:
        """Prepare for a batch; the mask (batch, length) tells texts from padding."""
        self._mask = mask

    def keep(self, _: nn.Module, given: tuple[Any, ...], __: Any) -> None:
        """Keep the inputs of a batch, as a forward hook of the layer."""
        states, mask = given[0], self._mask
        if states.dim() == 3 and mask is not None:  # a decoder's head scores every token; the last one counts
            last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
            states = states[torch.arange(len(states), device=states.device), last]
        self._batches.append(states.float().clone().cpu())

    def finish(self, back: Tensor) -> Tensor:
        """Join the batches, and return the inputs; `back` (n,) brings the rows into the order of the texts."""
        self.inputs = torch.cat(self._batches)[back]
        self._batches.clear()
        return self.inputs


@contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Callable[..., None]]]) -> Iterator[None]:
    """Call a function after each forward pass of its module, until the context is left."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def read_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    texts: Sequence[str],
    *,
    causal: bool,
    modules: Sequence[str] = (),
    batch_size: int = 16,
    progress: Progress = unwatched,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Run texts through a model, in the client's prompt, and return its pooled states.

    A decoder gets a text in its task's template and is pooled at the last token, where it would answer; an encoder
    gets the bare text and is pooled by the mean over its tokens.

    Args:
        model: A frozen base model.
        tokenizer: Its tokenizer.
        task: The client's task.
        texts: Public texts.
        causal: Whether the model is a decoder.
        modules: Names of modules whose inputs and outputs to return.
        batch_size: Texts of a batch.
        progress: Called with the number of texts read so far, from 0.

    Returns:
        Final states (n, width), and by module its inputs (n, d_in) and outputs (n, d_out).
    """
    rows = encode_texts(tokenizer, task, texts, causal=causal)
    layers = {name: model.get_submodule(name) for name in modules}
    return read_rows(
        model, tokenizer, rows, causal=causal, modules=layers, batch_size=batch_size, progress=progress
    )


@torch.inference_mode()
def read_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    *,
    causal: bool,
    modules: Mapping[Name, nn.Module],
    batch_size: int = 16,
    progress: Progress = unwatched,
    head: HeadReading | None = None,
) -> tuple[Tensor, dict[Name, Tensor], dict[Name, Tensor]]:
    """Do as `read_texts` with texts that are tokenised already; answers and labels are ignored.

    With `head` the whole classifier runs, and `head.inputs` is filled in.

    Raises:
        H2TuneError: States are not finite.
    """
    batches = by_length(rows, batch_size)
    inputs: dict[Name, list[Tensor]] = {name: [] for name in modules}
    outputs: dict[Name, list[Tensor]] = {name: [] for name in modules}
    finals: list[Tensor] = []
    pool: list[Callable[[Tensor], Tensor]] = [lambda states: states]

    def keep(name: Name) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
            inputs[name].append(pool[0](given[0]))
            outputs[name].append(pool[0](result))

        return hook

    def keep_final(_: nn.Module, __: tuple[Any, ...], result: Any) -> None:
        finals.append(pool[0](result.last_hidden_state))

    hooks = [(module, keep(name)) for name, module in modules.items()]
    hooks += [(model.base_model, keep_final), *([(head.layer, head.keep)] if head else [])]
    progress(done := 0)
    with _hooked(hooks):
        for places in batches:
            batch = _batch([rows[i] for i in places], tokenizer, model, causal=causal)
            pool[0] = pooling(batch["attention_mask"].float(), causal=causal)
            if head:
                head.begin(batch["attention_mask"])
            (model if head else model.base_model)(**batch)
            progress(done := done + len(places))
    _check_finite(model, *finals)
    back = torch.tensor([i for places in batches for i in places]).argsort()
    if head:
        head.finish(back)
    joined = [{name: torch.cat(parts)[back] for name, parts in kept.items()} for kept in (inputs, outputs)]
    return torch.cat(finals)[back], joined[0], joined[1]


@torch.inference_mode()
def head_inputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    layer: nn.Module,
    *,
    batch_size: int = 16,
) -> Tensor:
    """Return the inputs (n, d) of a layer of a classifier's head on texts that are tokenised."""
    model.eval()
    batches, head = by_length(rows, batch_size), HeadReading(layer)
    with _hooked([(layer, head.keep)]):
        for places in batches:
            batch = _batch(
                [Encoded(rows[i].prompt, (), None) for i in places], tokenizer, model, causal=False
            )
            head.begin(batch["attention_mask"])
            model(**batch)
    return head.finish(torch.tensor([i for places in batches for i in places]).argsort())


@torch.inference_mode()
def token_scores(model: PreTrainedModel, finals: Tensor, rows: Sequence[Encoded], labels: int) -> Tensor:
    """Return a decoder's logits (n, k) of the labels' first tokens after each text, from its final states (n, width).

    Args:
        model: A decoder.
        finals: Its final states after each text.
        rows: The texts, with the labels' tokens (`choices`).
        labels: Number of labels.
    """
    head = model.get_output_embeddings()
    states = finals.to(head.weight.device)
    firsts = [tuple(choice[0] for choice in row.choices) for row in rows]
    scores = torch.empty(len(rows), labels)
    for tokens in dict.fromkeys(firsts):  # mostly the same for all texts
        places = torch.tensor([place for place, mine in enumerate(firsts) if mine == tokens])
        logits = states[places] @ head.weight[list(tokens)].float().T
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[list(tokens)].float()
        scores[places] = logits.cpu()
    _check_finite(model, scores)
    return scores


def _check_finite(model: PreTrainedModel, *states: Tensor) -> None:
    if not all(bool(torch.isfinite(part).all()) for part in states):
        raise H2TuneError(
            "its values are not finite",
            where=f"model of type {model.config.model_type}",
            remedy='Check its weights, or set client.dtype = "float32"',
        )


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, task: Task, texts: Sequence[str], *, causal: bool
) -> list[Encoded]:
    """Return the texts as `read_texts` tokenises them: bare texts, in a decoder's prompt, without a label or answer."""
    if not causal:  # all in one call, and each text once: what was cut off of them is of no interest
        cut = tokenizer(list(texts), truncation=True, max_length=task.max_length, verbose=False)
        return [Encoded(tuple(tokens), (), None) for tokens in cut["input_ids"]]
    label = 0 if task.kind == "label" else None  # so that the labels' tokens are found
    prompts = [framed(task.template, text) for text in texts]
    examples = [
        Example(prompt, "", label, text, spans) for text, (prompt, spans) in zip(texts, prompts, strict=True)
    ]
    rows = encode.encode_causal(task, examples, tokenizer)
    return [replace(row, answer=(), label=None) for row in rows]


def pooling(mask: Tensor, *, causal: bool) -> Callable[[Tensor], Tensor]:
    """Return what pools a module's states over tokens: the last one (decoder), or the mean under the mask (encoder)."""
    length, count, padded = mask.shape[1], mask.sum(1, keepdim=True), not bool(mask.all())

    def pool(states: Tensor) -> Tensor:
        states = states.reshape(len(mask), length, -1)  # some models flatten batch and length
        if causal:
            # a copy, since a view would keep the states of all tokens in memory
            return states[:, -1].float().clone().cpu()
        states = states.float()
        weighted = states * mask[:, :, None] if padded else states
        return (weighted.sum(1) / count).cpu()

    return pool


def _batch(
    rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, *, causal: bool
) -> dict[str, Tensor]:
    if causal:
        # an answer of one token adds nothing to the input
        rows = [Encoded(row.prompt, (0,), None) for row in rows]
        batch = causal_batch(rows, pad_token(tokenizer), positions="position_ids" in forward_arguments(model))
    else:
        batch = text_batch(rows, pad_token(tokenizer))
    del batch["labels"]
    return {name: tensor.to(model.device) for name, tensor in batch.items()}
