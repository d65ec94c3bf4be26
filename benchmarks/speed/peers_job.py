"""The job that `peers.py` gives to every engine: its numbers, its files, and for the peers the model and torch loop.

The peers' environments have no h2tune, so nothing here may import it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a Llama's block; h2tune adapts the same seven."""


@dataclass(frozen=True)
class Job:
    """What every engine does; a client's round is one pass over its rows.

    Args:
        clients: Clients of the federation.
        per_round: Clients that train in a round.
        rounds: Number of rounds.
        rows: Rows of each client to train on.
        batch: Rows of an optimiser step; divides `rows`.
        rank: LoRA's r.
        alpha: LoRA's α.
        learning_rate: Of AdamW, constant.
        max_grad_norm: Norm to which gradients are clipped.
        width: Hidden size of the tiny Llama.
        blocks: Its blocks.
    """

    clients: int = 100
    per_round: int = 10
    rounds: int = 20
    rows: int = 32
    batch: int = 8
    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 5e-3
    max_grad_norm: float = 1.0
    width: int = 128
    blocks: int = 4

    @property
    def client_rounds(self) -> int:
        """Rounds of single clients in the whole run."""
        return self.per_round * self.rounds

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.client_rounds * self.rows // self.batch

    def save(self, folder: Path) -> None:
        """Write it to the folder of the run."""
        (folder / "job.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Return the job of a folder."""
        return cls(**json.loads((folder / "job.json").read_text()))


@dataclass
class Marks:
    """What an engine notes while it runs; times are seconds since the epoch, `cpu` processor seconds.

    Args:
        began: When the run was called, after imports.
        cpu: Processor seconds of this process until then.
        first: When the first round began.
        rounds: When each round ended.
        ended: When the run returned.
        steps: Optimiser steps of each round.
        losses: Mean training loss of each round.
        own: Processor seconds of this process until the end.
    """

    began: float = 0.0
    cpu: float = 0.0
    first: float = 0.0
    rounds: list[float] = field(default_factory=list)
    ended: float = 0.0
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    own: float = 0.0

    def begin_round(self) -> None:
        """Note that a round begins; only the first counts."""
        self.first = self.first or time.time()

    def end_round(self, steps: int, loss: float) -> None:
        """Note that a round has ended."""
        self.rounds.append(time.time())
        self.steps.append(steps)
        self.losses.append(loss)

    def around(self, run: Callable[[], object]) -> None:
        """Run, and note when it begins and ends."""
        self.began, self.cpu = time.time(), time.process_time()
        run()
        self.ended, self.own = time.time(), time.process_time()


def rows_file(folder: Path, client: int) -> Path:
    """Return the file with a client's training rows."""
    return folder / f"c{client:05d}.jsonl"


def model_folder(folder: Path) -> Path:
    """Return the folder of the base model and its tokenizer."""
    return folder / "models" / "llama"


def lora_model(folder: Path, job: Job) -> Any:
    """Return a PEFT model with a new LoRA adapter: A at random, B zero."""
    base = AutoModelForCausalLM.from_pretrained(model_folder(folder))
    config = LoraConfig(r=job.rank, lora_alpha=job.alpha, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    return get_peft_model(base, config)


def client_tensors(folder: Path, client: int) -> dict[str, Tensor]:
    """Return a client's rows as tensors; only the answer, the last token, is a target."""
    rows = [json.loads(line) for line in rows_file(folder, client).read_text().splitlines()]
    texts = [f"text : {row['words']} answer : {row['label']}" for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(model_folder(folder))
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    labels = torch.full_like(encoded["input_ids"], -100)
    labels[:, -1] = encoded["input_ids"][:, -1]
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": labels,
    }


def batches(rows: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of one shuffled pass."""
    count = len(rows["input_ids"])
    for chosen in torch.randperm(count).split(size):
        yield {name: tensor[chosen] for name, tensor in rows.items()}


def adamw(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser that h2tune's Trainer uses too."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)


def train(model: Any, rows: dict[str, Tensor], job: Job) -> list[float]:
    """Train for one pass in a plain loop, and return the loss of every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser, losses = adamw(parameters, job.learning_rate), []
    model.train()
    for batch in batches(rows, job.batch):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, job.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses
