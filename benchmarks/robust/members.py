"""Ten tiny members with one task, and some of them hostile: what they send is altered on its way to the server."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from h2tune.federation.embedded import Embedded
from h2tune.federation.server import Reply
from h2tune.federation.update import Download
from h2tune.quiet import quiet
from h2tune.seeds import generator, isolated

FILL = ("the", "a", "film", "book", "game", "news", "plot", "cast", "score", "team", "market", "phone")
GOOD, BAD = ("good", "great", "fine", "warm"), ("bad", "poor", "dull", "cold")
Tensors = dict[str, Tensor]
Attack = Callable[[Tensors, Sequence[Tensors], torch.Generator], Tensors]
"""Own increments of a hostile member, the honest ones' increments, a generator → what it sends."""


def noise(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Gaussian noise of ten times the standard deviation of its own increments."""
    return {k: 10 * t.std() * torch.randn(t.shape, generator=draw) for k, t in own.items()}


def flip(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Its own increments with the sign turned."""
    return {k: -t for k, t in own.items()}


def scaled(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Its own increments, turned and ten times as large."""
    return {k: -10 * t for k, t in own.items()}


def colluding(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """All send the same: the honest mean less 1.5 standard deviations of it in each entry.

    "A little is enough" (Baruch et al. 2019, arXiv 1902.06156): near enough to hide among the honest.
    """
    stacks = {k: torch.stack([one[k] for one in honest]) for k in own}
    return {k: s.mean(0) - 1.5 * s.std(0) for k, s in stacks.items()}


def opposing(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """All send the same: four times the honest mean, turned.

    Inner-product manipulation (Xie et al. 2020, arXiv 1903.03936): the mean of all then points the wrong way.
    """
    return {k: -4 * torch.stack([one[k] for one in honest]).mean(0) for k in own}


ATTACKS: dict[str, Attack] = {
    "noise": noise, "flip": flip, "scaled": scaled, "colluding": colluding, "opposing": opposing,
}  # fmt: skip


class Attacked(Embedded):
    """The embedded engine with hostile members, who know what the honest ones send.

    Only increments are altered: masks are leading and relations by depth here, so nothing else travels.
    """

    attack = ""
    hostile: frozenset[str] = frozenset()

    def exchange(self, round_number: int, downloads: Mapping[str, Download]) -> Iterator[Reply]:
        replies = list(super().exchange(round_number, downloads))
        honest = [r.update.tensors for r in replies if r.update and r.client not in self.hostile]
        for reply in replies:
            if reply.client in self.hostile and reply.update is not None and self.attack:
                draw = generator(0, self.attack, reply.client, round_number)
                sent = ATTACKS[self.attack](dict(reply.update.tensors), honest, draw)
                yield replace(reply, update=replace(reply.update, tensors=sent))
            else:
                yield reply


def federation(
    folder: Path, *, clients: int, hostile: int, seed: int, rounds: int
) -> tuple[dict[str, Any], frozenset[str]]:
    """Write one tiny Llama, rows and public texts; return a federation's content and the names of the hostile.

    Frames are anchored and frozen, A and B hardly move: all that is learned is in T, and what members have in common
    is in G.
    """
    _model(folder / "model", seed)
    rows = _rows(4000, seed)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "public.txt").write_text("".join(row["words"] + "\n" for row in _rows(400, seed + 1000)))
    task = {"file": str(folder / "rows.jsonl"), "prompt": "text : {words} answer :", "text": "{words}",
            "answer": "label", "labels": ["yes", "no"]}  # fmt: skip
    names = [f"member-{i}" for i in range(clients)]
    tables = [
        {"name": name, "model": str(folder / "model"), "task": task, "rank": 8, "part": [i, clients]}
        for i, name in enumerate(names)
    ]
    content = {
        "name": "robust", "seed": seed,
        "server": {"rounds": rounds, "min_clients": clients, "weighting": "uniform"},
        "adapter": {"mask": "leading", "alignment": "depth"},
        "basis": {"kind": "anchored", "texts": [str(folder / "public.txt")], "count": 300, "scale": 4.0},
        "train": {"local_steps": 2, "batch_size": 8, "alternation": "joint", "learning_rate": 1e-9,
                  "shared_learning_rate": 3e-3, "size_weight": 0.0, "drift_weight": 0.0, "distillation_weight": 0.0},
        "data": {"train": 32, "test": 400, "evaluate_rounds": "last", "evaluate_batch_size": 200},
        "client": tables,
    }  # fmt: skip
    return content, frozenset(names[clients - hostile :])


def _rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of seven words, three of which have a colour: the label is that of the more."""
    draw, rows = random.Random(seed), {}
    while len(rows) < count:
        good = draw.randint(0, 3)
        words = [draw.choice(GOOD) for _ in range(good)] + [draw.choice(BAD) for _ in range(3 - good)]
        words += [draw.choice(FILL) for _ in range(4)]
        draw.shuffle(words)
        rows[" ".join(words)] = "yes" if good >= 2 else "no"
    return [{"words": text, "label": label} for text, label in rows.items()]


def _model(folder: Path, seed: int) -> None:
    if folder.exists():
        return
    words = ["[PAD]", "[EOS]", "[UNK]", "text", "answer", ":", "yes", "no", *GOOD, *BAD, *FILL]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(single="[EOS] $A", special_tokens=[("[EOS]", 1)])
    config = AutoConfig.for_model(
        "llama", vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=1,
        initializer_range=0.1, attn_implementation="eager",
    )  # fmt: skip
    with quiet(), isolated(seed, "base"):
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=fast,
            pad_token="[PAD]",
            eos_token="[EOS]",
            unk_token="[UNK]",
            padding_side="left",
        ).save_pretrained(folder)
