"""Texts and models of the transfer benchmark: disjoint splits, and late blocks that can carry a middle matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from h2tune.assets import fetch
from h2tune.tasks.load import load_task
from h2tune.tasks.task import Example

LATE = 6  # blocks that carry T, counted from the output; matched one to one between models
ROLES = ("attn.o", "mlp.down")
ASSETS = {"minilm": "all-minilm-l6-v2", "smollm2": "smollm2-135m-instruct", "gemma": "gemma-3-270m"}
SIZES = {"public": 2400, "source": 3000, "pool": 500}
VALIDATION, TEST, OTHER = 400, 1200, 600
MORE, FRESH = 700, 600  # drawn after all others, for what was tried after the first tables
VERBALISERS = (" negative", " positive")
States = list[Tensor]


@dataclass(frozen=True)
class Texts:
    """Disjoint texts; `public` has no labels and is what every client has."""

    public: list[str]
    labelled: dict[str, tuple[Example, ...]]  # source, pool, validation, test, chosen_by, fresh

    def labels(self, split: str) -> np.ndarray:
        """Return the labels of a split, (n,) of 0 and 1."""
        return np.array([e.label for e in self.labelled[split]])


def load_texts() -> Texts:
    """Split the film reviews; add tweets and beginnings of news articles to the public sentences."""
    used = sum(SIZES.values())
    _, parts = load_task(
        "movie_reviews", train=used + MORE + FRESH, validation=VALIDATION, test=TEST + FRESH, seed=0
    )
    _, tweets = load_task("tweets", train=OTHER, validation=0, test=0, seed=0)
    _, news = load_task("bbc_topics", train=OTHER, validation=0, test=0, seed=0)
    a, b = SIZES["public"], SIZES["public"] + SIZES["source"]
    public = [e.text for e in parts.train[:a]] + [e.text for e in tweets.train]
    public += [" ".join(e.text.split()[:25]) for e in news.train]
    labelled = {"source": parts.train[a:b], "pool": parts.train[b:used]}
    labelled |= {"validation": parts.validation, "test": parts.test[:TEST]}
    labelled["chosen_by"] = parts.validation + parts.train[used : used + MORE]
    labelled["fresh"] = parts.test[TEST:] + parts.train[used + MORE :]
    return Texts(public, labelled)


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return `rows` of (tokens, ...) padded on the right, and the mask (n, longest)."""
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).long()


class Client:
    """A frozen model whose early blocks are run once for each text and whose last `LATE` blocks are run with T.

    An encoder reads the bare text and is read by the mean over tokens; a decoder reads the task's prompt and is
    read at its last token, where the answer would come.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.bfloat16) -> None:
        path = fetch(ASSETS[name], quiet=True)
        self.name, self.encoder = name, name == "minilm"
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        if self.encoder:
            self.net = AutoModel.from_pretrained(path, dtype=dtype).eval().requires_grad_(False)
            self.blocks = self.net.encoder.layer
            self.answer: Tensor | None = None
        else:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval().requires_grad_(False)
            self.net, self.blocks = model.model, model.model.layers
            first = [self.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in VERBALISERS]
            negative, positive = model.lm_head.weight[first].float()
            self.answer = positive - negative
        self.split = len(self.blocks) - LATE
        self.modules: dict[tuple[int, str], nn.Module] = {}
        for slot, block in enumerate(self.blocks[self.split :]):
            pair = (
                (block.attention.output.dense, block.output.dense)
                if self.encoder
                else (block.self_attn.o_proj, block.mlp.down_proj)
            )
            self.modules |= {(slot, role): module for role, module in zip(ROLES, pair, strict=True)}

    def tokens(self, texts: Sequence[str]) -> States:
        """Return token ids, one row a text."""
        short = self.tokenizer(list(texts), truncation=True, max_length=64, add_special_tokens=self.encoder)
        rows = short["input_ids"]
        if not self.encoder:
            prompts = [f"Review: {self.tokenizer.decode(row)}\nSentiment:" for row in rows]
            rows = self.tokenizer(prompts)["input_ids"]
        return [torch.tensor(row) for row in rows]

    @torch.no_grad()
    def prepare(self, texts: Sequence[str]) -> States:
        """Return each text's states at the entry of the late blocks, (tokens, width); an encoder's token ids."""
        ids = self.tokens(texts)
        if self.encoder:  # all its blocks are late
            return ids
        out: dict[int, Tensor] = {}
        for batch in by_length(ids):
            x, mask = pad([ids[i] for i in batch])
            hidden = self._run(slice(0, self.split), self.net.embed_tokens(x), mask, norm=nn.Identity())
            out |= {i: hidden[row, : len(ids[i])].clone() for row, i in enumerate(batch)}
        return [out[i] for i in range(len(ids))]

    def _run(self, part: slice, hidden: Tensor, mask: Tensor, norm: nn.Module) -> Tensor:
        """Run some blocks of a decoder by shortening it for the moment."""
        net, config = self.net, self.net.config
        before = net.layers, net.norm, config.num_hidden_layers, getattr(config, "layer_types", None)
        net.layers, net.norm = nn.ModuleList(list(self.blocks)[part]), norm
        config.num_hidden_layers = len(net.layers)
        if before[3]:
            config.layer_types = before[3][part]
        try:
            return net(inputs_embeds=hidden, attention_mask=mask, use_cache=False).last_hidden_state
        finally:
            net.layers, net.norm, config.num_hidden_layers = before[:3]
            if before[3]:
                config.layer_types = before[3]

    def read(self, values: Tensor, mask: Tensor, reading: str = "") -> Tensor:
        """Pool (n, tokens, d) to (n, d): "mean" leaves out a decoder's first token, whose states are huge."""
        if (reading or self.reading) == "last":
            return values[torch.arange(len(values)), mask.sum(1) - 1].float()
        weight = mask.clone()
        weight[:, 0] *= int(self.encoder)
        share = (weight / weight.sum(1, keepdim=True))[..., None]
        return (values.float() * share).sum(1)

    @property
    def reading(self) -> str:
        """How this client is read."""
        return "mean" if self.encoder else "last"

    @property
    def views(self) -> tuple[str, ...]:
        """Readings that go into the common coordinates."""
        return ("mean",) if self.encoder else ("mean", "last")

    def forward(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return final states (n, tokens, width) and the mask."""
        x, mask = pad(states)
        if self.encoder:
            return self.net(input_ids=x, attention_mask=mask).last_hidden_state, mask
        return self._run(slice(self.split, None), x, mask, norm=self.net.norm), mask

    @torch.no_grad()
    def features(self, states: States) -> Tensor:
        """Return final features at this client's reading, (n, width)."""
        out: dict[int, Tensor] = {}
        for batch in by_length(states):
            values = self.read(*self.forward([states[i] for i in batch]))
            out |= dict(zip(batch, values, strict=True))
        return torch.stack([out[i] for i in range(len(states))])

    @torch.no_grad()
    def public_features(self, states: States) -> dict[str, Tensor]:
        """Return pooled inputs and outputs of every module, "slot/role/in", and final views, "final/mean"."""
        rows: dict[str, dict[int, Tensor]] = {}
        batch: list[int] = []
        mask = torch.empty(0)

        def keep(key: str, values: Tensor) -> None:
            rows.setdefault(key, {}).update(zip(batch, values, strict=True))

        def hook(key: str) -> Callable[..., None]:
            def record(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
                keep(f"{key}/in", self.read(inputs[0], mask))
                keep(f"{key}/out", self.read(output, mask))

            return record

        handles = [m.register_forward_hook(hook(f"{s}/{r}")) for (s, r), m in self.modules.items()]
        for batch in by_length(states):
            mask = pad([states[i] for i in batch])[1]
            hidden, _ = self.forward([states[i] for i in batch])
            for view in self.views:
                keep(f"final/{view}", self.read(hidden, mask, view))
        for handle in handles:
            handle.remove()
        return {key: torch.stack([row[i] for i in range(len(states))]) for key, row in rows.items()}


def by_length(states: States, size: int = 64) -> list[list[int]]:
    """Return indices in batches of rows of about one length."""
    order = sorted(range(len(states)), key=lambda i: len(states[i]))
    return [order[i : i + size] for i in range(0, len(order), size)]
