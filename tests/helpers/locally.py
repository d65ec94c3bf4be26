"""A client's local rounds on a tiny model, without a federation around them."""

from __future__ import annotations

from typing import Any

import torch

from h2tune.adapter.roles import find_roles
from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.messages import Download, Enrolment, digest
from h2tune.tasks.task import Example, Task
from h2tune.training.encode import encode_causal, encode_texts
from h2tune.training.local import LocalRound, LocalTraining
from helpers import tiny

TASK = Task(
    "toy", "label", ("yes", "no"), (" yes", " no"), "text : {words} answer :", "none", "none", "label", 32
)
EXAMPLES = [
    Example(f"text : {word} the film answer :", " yes" if word in ("good", "great") else " no",
            0 if word in ("good", "great") else 1, f"{word} the film")
    for word in ("good", "bad", "great", "poor") * 4
]  # fmt: skip


def adapted(
    family: str = "llama",
    base_dtype: torch.dtype = torch.float32,
    *,
    rank: int = 3,
    seed: int = 0,
    weights: tuple[float, float, float] = (1e-4, 0.1, 0.1),
    **settings: Any,
) -> H2TuneAdaptedModel:
    """Return a tiny model with an h2tune adapter; `weights` are λ_reg, λ_kl and λ_kd."""
    encoder = family in tiny.ENCODERS
    base = tiny.classifier(family, labels=2, blocks=2) if encoder else tiny.causal(family, blocks=2)
    placements = find_roles(base)
    roles = tuple(dict.fromkeys(p.role for p in placements))
    modules = {p.module: (p.d_in, p.d_out) for p in placements}
    size, drift, distillation = weights
    chosen = {
        "shared_rank": 5, "slots": 3, "alpha": 8.0,
        "size_weight": size, "drift_weight": drift, "distillation_weight": distillation,
    } | settings  # fmt: skip
    return H2TuneAdaptedModel(
        base.to(base_dtype), Enrolment("one", "tiny", 2, rank, 1, {}, modules), H2TuneSettings(**chosen),
        roles=roles, heads=["classifier"] if encoder else [], seed=seed,
    )  # fmt: skip


def download(of: H2TuneAdaptedModel, round_number: int) -> Download:
    size, roles = of.shared.size, of.shared.roles
    shared = torch.zeros(of.shared.slots, len(roles), size, size)
    if round_number:
        shared = torch.randn(shared.shape, generator=torch.Generator().manual_seed(round_number)) * 0.3
    tensors = {f"shared.{role}": shared[:, i].contiguous() for i, role in enumerate(roles)}
    return Download(round_number, tensors if round_number else {}, digest({"shared": shared}))


def train(of: H2TuneAdaptedModel, round_number: int, *, steps: int = 2, causal: bool = True, **changes):
    numbers = {
        "alternation": of.settings.alternation, "rounds": 3, "local_steps": steps, "batch_size": 4, "accumulation": 1,
        "learning_rates": {"specific": 1e-2, "shared": 1e-2, "relation": 1e-2}, "weight_decay": 0.0,
        "scheduler": "constant", "warmup_steps": 0, "max_grad_norm": 1.0, "arguments": {},
    }  # fmt: skip
    tokens = tiny.tokenizer(side="left")
    encode = encode_causal if causal else encode_texts
    return LocalRound(
        of.model, encode(TASK, EXAMPLES, tokens), tokens, LocalTraining(**{**numbers, **changes}),
        causal=causal, phases=of.phases(), terms=of.terms(), alternation=of.alternation,
        round_number=round_number, seed=0,
    ).train()  # fmt: skip


def trained(of: H2TuneAdaptedModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for group in of.phases().values() for n, p in group.items()}
