"""Two tiny clients that share neither architecture, depth, width, rank nor words, and their joint objective."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from h2tune.adapter.roles import depth, find_roles
from h2tune.federation.h2tune.adapted_model import ADAPTER, H2TuneAdaptedModel
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import NAME, H2Tune
from h2tune.federation.messages import Download, Enrolment
from h2tune.functional.factors import contribution
from h2tune.functional.losses import IGNORED, task_loss
from h2tune.heads import head_modules, set_head
from h2tune.quiet import quiet
from h2tune.seeds import derive, isolated
from h2tune.training.encode import Encoded, collator, kept_logits
from h2tune.training.local import LocalRound, LocalTraining
from h2tune.training.terms import Terms

VOCABULARY, LENGTH, EXAMPLES, FLIPPED = 40, 8, 256, 0.25
ANSWERS = (38, 39)
TOKENIZER: Any = SimpleNamespace(pad_token_id=0, eos_token_id=1)
SHAPES = {"a": ("llama", 2, 32, 4), "b": ("bert", 3, 24, 8)}
"""Client → family, blocks, width, rank."""


@dataclass
class Client:
    """A client: its base model, adapter and examples."""

    enrolment: Enrolment
    causal: bool
    data: list[Encoded]
    adapted: H2TuneAdaptedModel

    def gradients(self, download: Download) -> tuple[float, dict[tuple[int, str], Tensor], float]:
        """Receive G; return the full-batch loss, its gradient to every T, and the squared norm of all private ones."""
        self.adapted.receive(download)
        phases = self.adapted.phases()
        parameters = {n: p for group in phases.values() for n, p in group.items() if "h2tune_scores" not in n}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        model = self.adapted.model
        batch = collator(model, TOKENIZER, causal=self.causal)(self.data)
        items = (batch["labels"] != IGNORED).sum()
        loss = task_loss(kept_logits(model, batch, causal=self.causal), batch["labels"], items)
        loss.backward()
        middles = {
            place: layer.h2tune_delta[ADAPTER].grad.clone()
            for place, layer in self.adapted.shared.layers.items()
        }
        private = [p.grad for n, p in parameters.items() if "h2tune_delta" not in n and p.grad is not None]
        return float(loss.detach()), middles, float(sum(g.square().sum() for g in private))

    def train(self, round_number: int, rate: float, local_steps: int, batch: int, seed: int) -> None:
        """Take the round's local steps with h2tune's trainer and plain SGD."""
        LocalRound(
            self.adapted.model,
            self.data,
            TOKENIZER,
            LocalTraining(
                alternation="step",
                rounds=round_number + 1,
                local_steps=local_steps,
                batch_size=batch,
                accumulation=1,
                learning_rates=dict.fromkeys(("specific", "shared", "relation"), rate),
                weight_decay=0.0,
                scheduler="constant",
                warmup_steps=0,
                max_grad_norm=0.0,
                arguments={"optim": "sgd"},
            ),
            causal=self.causal,
            phases=self.adapted.phases(),
            terms=Terms(),
            alternation=self.adapted.alternation,
            round_number=round_number,
            seed=derive(seed, self.enrolment.name),
        ).train()


def build(seed: int) -> tuple[H2Tune, list[Client]]:
    """Return the server's half and the clients, all at the same start for the same seed."""
    bases = {name: _base(name, *shape[:3], seed) for name, shape in SHAPES.items()}
    enrolments = [_enrolment(name, base, SHAPES[name][3]) for name, base in bases.items()]
    ranks, depths = [e.rank for e in enrolments], [e.depth for e in enrolments]
    # masks and drift terms off: a mask that is chosen anew, or a term that moves, is another objective in every round
    strategy = H2Tune(enrolments, H2TuneSettings(max(ranks), max(depths), mask="leading"))
    clients = []
    for enrolment in enrolments:
        base, causal = bases[enrolment.name], SHAPES[enrolment.name][0] != "bert"
        heads = [] if causal else head_modules(base)
        if heads:
            set_head(base, ["0", "1"], seed)
        adapted = strategy.attach(base, enrolment, heads=heads, seed=seed)
        clients.append(Client(enrolment, causal, _data(enrolment.name, seed, causal), adapted))
    return strategy, clients


def squared_gradient(
    strategy: H2Tune, clients: list[Client], state: dict[str, Tensor], t: int
) -> tuple[float, float]:
    """Return F and ‖∇F‖² at the start of round t.

    F = Σ wᵢ Lᵢ over G and all that is private: A, B, Z and heads. Its gradient to G collects what clients have to T as
    equation (4) collects increments: Σ wᵢ Σ_l P[g,l] · scatter(∂Lᵢ/∂T_l, Ω).
    """
    total = sum(c.enrolment.examples for c in clients)
    to_shared = torch.zeros_like(state[NAME])
    value = norm = 0.0
    for client in clients:
        name, weight = client.enrolment.name, client.enrolment.examples / total
        loss, middles, private = client.gradients(strategy.download(state, name, t))
        shared, roles = client.adapted.shared, strategy.codec.roles_of(name)
        part, _ = contribution(
            middles, shared.masks(), shared.relation().detach(), roles, strategy.settings.shared_rank
        )
        for i, role in enumerate(roles):
            to_shared[:, strategy.roles.index(role)] += weight * part[:, i]
        value, norm = value + weight * loss, norm + weight**2 * private
    return value, norm + float(to_shared.square().sum())


def _base(name: str, family: str, blocks: int, width: int, seed: int) -> PreTrainedModel:
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    common |= {"initializer_range": 0.1, "attn_implementation": "eager"}
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": blocks,
                             "num_attention_heads": 4, "max_position_embeddings": 32}  # fmt: skip
    if family == "bert":
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2}
    config = AutoConfig.for_model(family, **common, **sizes)
    kind = AutoModelForSequenceClassification if family == "bert" else AutoModelForCausalLM
    with quiet(), isolated(seed, "base", name):
        return kind.from_config(config, dtype=torch.float32).eval()


def _enrolment(name: str, base: PreTrainedModel, rank: int) -> Enrolment:
    placements = find_roles(base)
    roles: dict[str, list[int]] = {}
    for p in placements:
        roles.setdefault(p.role, []).append(p.block)
    return Enrolment(
        name=name,
        model=name,
        depth=depth(placements),
        rank=rank,
        examples=EXAMPLES,
        roles={role: tuple(sorted(blocks)) for role, blocks in roles.items()},
        modules={p.module: (p.d_in, p.d_out) for p in placements},
    )


def _data(name: str, seed: int, causal: bool) -> list[Encoded]:
    """Draw rows of words; a label says of which of two groups there are more. Some labels are wrong: noise stays."""
    rng = np.random.default_rng(derive(seed, "data", name))
    words = rng.permutation(np.arange(2, 38))
    good = set(words[:18].tolist())
    found = []
    for _ in range(EXAMPLES):
        row = tuple(int(word) for word in rng.choice(words, LENGTH))
        label = int(sum(word in good for word in row) > LENGTH // 2) ^ int(rng.random() < FLIPPED)
        found.append(Encoded((1, *row), (ANSWERS[label],) if causal else (), label))
    return found
